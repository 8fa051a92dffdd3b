"""A small model with the target's vocabulary drafts token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Plan
from specbench.decoding.state import Outcome, State
from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.law import History, Law, draw
from specbench.rng import Purpose


class ModelDrafter:
    """Draft from the pair's draft model, under the target's sampling settings.

    The law that a token was drawn from, after the draft's own warping, is recorded for the
    verifier. After full acceptance the draft's cache lacks the last drafted token: the next
    round feeds it together with the newest one.
    """

    needs = frozenset({"draft"})
    carries_state = False

    def reset(self) -> None:
        """Nothing is remembered between requests."""

    def begin(self, state: State) -> None:
        """Feed the prompt to the draft model."""
        draft = state.models.draft
        assert draft is not None
        self._cache = state.models.draft_cache(state.capacity)
        self._law = state.request.draft_law or state.request.law
        prompt = torch.tensor([state.request.prompt], device=draft.device)
        self._history = History(self._law, prompt, draft.vocab_size)
        draft.forward(prompt, self._cache, last=1)
        state.work.forwards += 1
        state.work.tokens += prompt.shape[1]
        state.clock.lap(Segment.DRAFT)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Return a chain drawn from the draft's law."""
        assert plan.topology.children(0) == 1, "this drafter draws chains"
        count = min(plan.length.limit(), plan.depth)
        if count < 1:
            return None
        draft = state.models.draft
        assert draft is not None
        uniforms = state.request.streams.uniforms(len(state.committed), count, Purpose.DRAFT)
        fed = torch.tensor([state.committed[self._cache.lengths[0] :]], device=draft.device)
        tokens: list[Tensor] = []
        laws: list[Tensor] = []
        for uniform in uniforms:
            logits = draft.forward(fed, self._cache, last=1)[:, -1]
            state.work.forwards += 1
            state.work.tokens += fed.shape[1]
            law, token = self._next(logits, tokens, uniform)
            tokens.append(token)
            if law is not None:
                laws.append(law)
                if plan.length.watches and plan.length.should_stop(law):
                    break
            fed = token[:, None]
        chain = torch.stack(tokens, dim=1)
        if not laws:
            return DraftTree.chain(chain, Draws(DrawKind.POINT))
        parents = tuple(range(-1, len(tokens) - 1))
        law = torch.stack(laws, dim=1)
        return DraftTree.chain(chain, Draws(DrawKind.WITH_REPLACEMENT, parents, law))

    def observe(self, state: State, outcome: Outcome) -> None:
        """Roll the draft's cache back to the committed tokens."""
        emitted = len(outcome.verdict.tokens)
        if self._law.needs_history:
            new = torch.tensor([state.committed[-emitted:]], device=state.models.target.device)
            self._history.commit(new)
        self._cache.truncate([min(self._cache.lengths[0], len(state.committed) - 1)])

    def _next(
        self, logits: Tensor, tokens: list[Tensor], uniform: float
    ) -> tuple[Tensor | None, Tensor]:
        """Return the law of the next draft token, [1, V], and the token, [1]."""
        law: Law = self._law
        seen = self._history.now()
        if seen is not None and tokens:
            seen = seen.scatter(1, torch.stack(tokens, dim=1), True)
        if law.greedy:
            return None, law.argmax(logits, seen)
        probabilities = law.probabilities(logits, seen)
        return probabilities, draw(probabilities, uniform)
