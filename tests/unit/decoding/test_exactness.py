"""Every exact method emits the target's law: by enumeration, in float64."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.base import Drafter
from specbench.decoding.growth import Growth
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers import token_sd as token_sd_module
from specbench.decoding.verifiers.base import Verifier
from specbench.decoding.verifiers.sample_match import SampleMatch, walk
from specbench.law import Law
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, pld, table_pair, token_sd

PROMPT = (0, 1, 0, 2, 0, 1)
LAWS = {
    "plain": Law(),
    "cold": Law(temperature=0.5),
    "top_k": Law(temperature=1.3, top_k=2),
    "top_p": Law(temperature=1.2, top_p=0.7),
    "penalty": Law(repetition_penalty=1.7),
    "all": Law(temperature=0.8, top_k=3, top_p=0.9, repetition_penalty=1.3),
}
DECODERS = {"ar": Autoregressive(), "token_sd": token_sd(2), "pld": pld(3)}
TOLERANCE = 1e-12


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_law_equals_the_targets(decoder, law):
    models = table_pair()
    got = output_law(decoder, models, law, PROMPT, 3)
    assert abs(sum(got.values()) - 1) < TOLERANCE
    assert distance(got, true_law(models, law, PROMPT, 3)) < TOLERANCE


@pytest.mark.parametrize(
    "decoder",
    [
        pytest.param(decoder, id=name, marks=() if name == "token_sd" else pytest.mark.slow)
        for name, decoder in DECODERS.items()
    ],
)
def test_law_equals_the_targets_over_longer_sequences(decoder):
    models = table_pair(order=1)
    got = output_law(decoder, models, Law(), PROMPT, 4)
    assert distance(got, true_law(models, Law(), PROMPT, 4)) < TOLERANCE


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_stop_token_inside_a_draft_keeps_the_law(decoder):
    models = table_pair()
    got = output_law(decoder, models, Law(), PROMPT, 4, stop={1})
    assert distance(got, true_law(models, Law(), PROMPT, 4, stop={1})) < TOLERANCE
    assert all(1 not in tokens[:-1] for tokens in got)


@pytest.mark.parametrize("draft_law", [Law(temperature=2.0), Law(top_k=1), Law(temperature=0)])
def test_a_draft_with_another_law_changes_no_output(draft_law):
    models = table_pair()
    got = output_law(token_sd(2), models, Law(), PROMPT, 3, draft_law=draft_law)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) < TOLERANCE


def test_acceptance_equals_one_minus_total_variation():
    models = table_pair()
    context = torch.tensor([[*PROMPT]])
    p = models.target.forward(context, models.target.new_cache(1, 9))[0, -1].softmax(-1)
    q = models.draft.forward(context, models.draft.new_cache(1, 9))[0, -1].softmax(-1)
    accepted = torch.minimum(p, q).sum()
    assert torch.isclose(accepted, 1 - (p - q).abs().sum() / 2)


class Wrong:
    """Mutations of speculative sampling that look plausible and are not lossless."""

    @staticmethod
    def no_residual(target, draft, accepted):
        rows = torch.arange(target.shape[0])
        return target[rows, accepted]

    @staticmethod
    def bonus_from_draft_position(target, draft, accepted):
        rows = torch.arange(target.shape[0])
        full = accepted == draft.shape[1]
        correct = token_sd_module_residual(target, draft, accepted)
        return torch.where(full[:, None], target[rows, accepted - 1], correct)


token_sd_module_residual = token_sd_module.residual


@pytest.mark.parametrize("mutation", ["no_residual", "bonus_from_draft_position"])
def test_a_wrong_leftover_law_is_caught(monkeypatch, mutation):
    models = table_pair()
    monkeypatch.setattr(token_sd_module, "residual", getattr(Wrong, mutation))
    got = output_law(token_sd(2), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_an_unwarped_draft_law_is_caught(monkeypatch):
    models = table_pair()
    law = Law(temperature=0.4)
    original = Growth.law

    def drawn_from_the_warped_law(self, logits, recorded, uniform):
        choices = self._session.request.choices
        return choices.draw(original(self, logits), uniform)

    monkeypatch.setattr(Growth, "token", drawn_from_the_warped_law)
    monkeypatch.setattr(Growth, "law", lambda self, logits: Law().probabilities(logits))
    got = output_law(token_sd(2), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) > 1e-3


def test_an_unwarped_bonus_is_caught(monkeypatch):
    models = table_pair()
    law = Law(temperature=0.4)

    def unwarped(target, draft, accepted):
        full = (accepted == draft.shape[1])[:, None]
        correct = token_sd_module_residual(target, draft, accepted)
        raw = target[torch.arange(target.shape[0]), accepted] ** law.temperature
        return torch.where(full, raw / raw.sum(-1, keepdim=True), correct)

    monkeypatch.setattr(token_sd_module, "residual", unwarped)
    got = output_law(token_sd(2), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) > 1e-3


def test_a_stale_cache_is_caught(monkeypatch):
    """Forgetting to drop rejected tokens from the draft's cache changes its law unnoticed."""
    models = table_pair()
    original = type(models.target.new_cache(1, 1)).keep

    def keep_one_too_many(self, base, indices):
        original(self, base, indices)
        self.tokens[0][self.lengths[0] - 1] = (self.tokens[0][self.lengths[0] - 1] + 1) % 3

    monkeypatch.setattr(type(models.target.new_cache(1, 1)), "keep", keep_one_too_many)
    got = output_law(token_sd(2), models, Law(), PROMPT, 3)
    monkeypatch.undo()
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_drawing_per_path_is_caught():
    """One draw per leaf and the longest match is biased; one draw per node is exact."""
    models = table_pair()
    drafter = FixedTree(tokens=(0, 1, 2, 1), parents=(-1, -1, 0, 0))
    exact = composed(drafter, SampleMatch())
    biased = composed(drafter, LongestOfPaths())
    truth = true_law(models, Law(top_k=2), PROMPT, 4)
    assert distance(output_law(exact, models, Law(top_k=2), PROMPT, 4), truth) < TOLERANCE
    assert distance(output_law(biased, models, Law(top_k=2), PROMPT, 4), truth) > 1e-3


class FixedTree(Drafter):
    """Proposes one tree whenever there is room for it."""

    def __init__(self, tokens, parents):
        self._tree = DraftTree(torch.tensor([tokens]), parents)

    def propose(self, state, plan):
        return self._tree if self._tree.depth <= plan.depth else None


class LongestOfPaths(Verifier):
    """Mutation of `SampleMatch`: every leaf draws its own tokens."""

    def verify(self, scored):
        tree = scored.tree
        leaves = [n for n in range(tree.size) if not tree.children[n + 1]] or [-1]
        law = scored.law.probabilities(scored.logits, scored.seen)
        verdicts = []
        for leaf in leaves:
            nodes = [-1, *tree.paths(leaf)]
            drawn = scored.choices.draw(law[:, [n + 1 for n in nodes]], 0.0)[0].tolist()
            by_node = [0] * (tree.size + 1)
            for node, token in zip(nodes, drawn, strict=True):
                by_node[node + 1] = token
            path = tuple(nodes[1:])
            chain = DraftTree.chain(tree.tokens[:, list(path)])
            verdict = walk(chain, drawn, chain.tokens[0].tolist())
            verdicts.append(verdict._replace(path=path[: len(verdict.path)]))
        return [max(verdicts, key=lambda verdict: len(verdict.path))]


def composed(drafter, verifier):
    return DraftVerify(drafter, Chain(), Constant(9), verifier)


def test_penalties_from_the_rounds_start_are_caught(monkeypatch):
    """The penalty must look at each node's own path, not at the round's first history."""
    from specbench.law import History

    models = table_pair()
    law = Law(repetition_penalty=2.5)

    def at_the_start(self, tokens, ancestors):
        return self._seen[:, None].repeat(1, tokens.shape[1] + 1, 1)

    monkeypatch.setattr(History, "along", at_the_start)
    got = output_law(token_sd(2), models, law, (0,), 3)
    monkeypatch.undo()
    assert distance(got, true_law(models, law, (0,), 3)) > 1e-3
