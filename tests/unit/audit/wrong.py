"""Decoders that look right and are not: each has one mistake that was made somewhere.

They stand outside of specbench's own parts and are named by `_target_`, as a user's would be.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from specbench.choices import Choices
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.jacobi.couplings import Fresh, Maximal
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import StopTokens
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.rsd_s import RsdS
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.verifiers.base import Verifier
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.sample_match import target_tokens, walk
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.rng import Purpose


def chain(verifier=None, draft_length=2):
    return DraftVerify(ModelDrafter(), Chain(), Constant(draft_length), verifier or TokenSD())


def right(draft_length=2):
    """No mistake."""
    return chain(draft_length=draft_length)


class NoResidual(TokenSD):
    def leftover(self, target, draft, accepted):
        return target[torch.arange(len(target)), accepted]


class BonusOfTheLastPosition(TokenSD):
    def leftover(self, target, draft, accepted):
        rows = torch.arange(len(target))
        full = accepted == draft.shape[1]
        correct = super().leftover(target, draft, accepted)
        return torch.where(full[:, None], target[rows, accepted - 1], correct)


class BonusOfRawSoftmax(TokenSD):
    """The bonus token ignores temperature, top-k and penalty."""

    def verify(self, scored):
        self._raw = scored.logits.softmax(-1)
        return super().verify(scored)

    def leftover(self, target, draft, accepted):
        full = accepted == draft.shape[1]
        raw = self._raw[torch.arange(len(target)), accepted]
        return torch.where(full[:, None], raw, super().leftover(target, draft, accepted))


class AcceptsByDraft(TokenSD):
    """Accepts with probability q in place of p/q."""

    def accepted(self, scored, target, draft):
        tokens = scored.tree.tokens
        q = draft.gather(-1, tokens[..., None]).squeeze(-1)
        accept = scored.choices.happens(q, scored.uniforms(Purpose.ACCEPT, tokens.shape[1]))
        return accept.long().cumprod(1).sum(1)


class StaleDraftLaw(TokenSD):
    """Every token is tested against the law of the first one."""

    def draft_law(self, scored, target):
        law = super().draft_law(scored, target)
        return law[:, :1].expand_as(law)


class PenaltyOfTheRoundsStart(TokenSD):
    """Every depth is penalised for the tokens before the round alone."""

    def verify(self, scored):
        if scored.seen is None:
            return super().verify(scored)
        seen = scored.seen[:, :1].expand_as(scored.seen)
        return super().verify(replace(scored, seen=seen))


class SharedNumbers(TokenSD):
    """A draft token is tested with the number that drew it: an enumeration cannot see it."""

    def accepted(self, scored, target, draft):
        tokens = scored.tree.tokens
        index = tokens[..., None]
        count = tokens.shape[1]
        p = target[:, :count].gather(-1, index).squeeze(-1)
        q = draft.gather(-1, index).squeeze(-1)
        accept = scored.choices.happens(p / q, scored.uniforms(Purpose.DRAFT, count))
        return accept.long().cumprod(1).sum(1)


class TakesAllDrafts(Verifier):
    """Emits the draft, whatever the target says."""

    def verify(self, scored):
        tree = scored.tree
        drawn = [*tree.tokens[0].tolist(), int(target_tokens(scored)[0, -1])]
        return [walk(tree, drawn, tree.tokens[0].tolist())]


class ReversedSiblings(RsdS):
    """The sibling with the smallest score is offered first."""

    def grow(self, growth):
        add = growth.add
        growth.add = lambda parents, tokens: add(parents.flip(0), tokens.flip(0)).flip(0)
        return super().grow(growth)


class KeepsRejected(RecursiveRejection):
    """Drawn without replacement, verified as if with."""

    def __init__(self):
        super().__init__(replacement=False)
        self._replacement = True


class StaleMaximal(Maximal):
    """A kept draft stays with its old law, as in a published back end."""

    def redraw(self, trial):
        old = trial.old.clone()
        drawn = super().redraw(trial)
        kept = drawn[:-1] == trial.tokens
        trial.laws[:-1] = torch.where(kept[:, None], old[:-1], trial.laws[:-1])
        return drawn


class StaleFresh(Fresh):
    """New drafts from the new law, tested against the old one."""

    def redraw(self, trial):
        drawn = super().redraw(trial)
        trial.laws[:-1] = trial.old[:-1]
        return drawn


class ResampledFromTheLaw(Fresh):
    """A rejected draft is replaced by a draw from p, and not from the residual."""

    def redraw(self, trial):
        trial.correction = lambda: trial.laws.index_select(0, trial.rejected)
        return super().redraw(trial)


class RunsPastTheEnd(DraftVerify):
    """Tokens behind an end of text are kept."""

    def __init__(self):
        super().__init__(ModelDrafter(), Chain(), Constant(2), TokenSD())

    def generate(self, models, request, clock):
        endless = replace(request, stop=StopTokens(frozenset()))
        return super().generate(models, endless, clock)


class LongAnswers(Autoregressive):
    """Emits one token more than it was asked for."""

    def generate(self, models, request, clock):
        longer = replace(request, max_new_tokens=request.max_new_tokens + 1)
        return super().generate(models, longer, clock)


class HighestOfTies(Autoregressive):
    """Takes the last of several most probable tokens at temperature 0."""

    def generate(self, models, request, clock):
        law = type(request.law)
        original = law.argmax
        law.argmax = lambda self, logits, seen=None: (
            logits.shape[-1] - 1 - self.penalise(logits, seen).flip(-1).argmax(-1)
        )
        try:
            return super().generate(models, request, clock)
        finally:
            law.argmax = original


class Crashes(Autoregressive):
    def generate(self, models, request, clock):
        raise RuntimeError("no such thing")


class OwnGenerator(Autoregressive):
    """Draws with a generator of its own that nobody seeds; the law is right."""

    def __init__(self):
        self._generator = torch.Generator().manual_seed(0)

    def generate(self, models, request, clock):
        own = _Unasked()
        own.generator = self._generator
        return super().generate(models, replace(request, choices=own), clock)


class _Unasked(Choices):
    """Choices that a decoder makes by itself, whatever its request says."""

    def draw(self, probabilities, uniform):
        return torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]


def verifier(name, draft_length=2):
    """Speculative sampling with one of the verifiers of this module."""
    return chain(globals()[name](), draft_length)


def jacobi(name, window=3):
    return SpeculativeJacobi(window, globals()[name]())


def tree_of(rule):
    return DraftVerify(
        ModelDrafter(), StaticTree(widths=[2, 1]), Constant(2), TreeWalk(globals()[rule]())
    )


def reversed_beam():
    rule = TreeWalk(RecursiveRejection(False))
    return DraftVerify(ModelDrafter(), ReversedSiblings(2, 2), Constant(2), rule)
