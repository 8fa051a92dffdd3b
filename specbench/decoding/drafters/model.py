"""A small model with the target's vocabulary drafts, in the shape that the topology asks for."""

from __future__ import annotations

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.growth import Growth, Source
from specbench.decoding.state import Outcome, State
from specbench.decoding.tree import DraftTree
from specbench.law import History
from specbench.transfer import to_device


class ModelDrafter(Drafter):
    """Draft from the pair's draft model, under the target's sampling settings.

    The law that a token was drawn from, after the draft's own warping, is recorded for the
    verifier. After full acceptance the draft's cache lacks the last drafted token: the next
    round feeds it together with the newest one.
    """

    needs = frozenset({"draft"})

    def begin(self, state: State) -> None:
        """Feed the prompt to the draft model."""
        draft = state.models.draft
        assert draft is not None
        law = state.request.draft_law or state.request.law
        prompt = to_device([state.request.prompt], draft.device)
        history = History(law, to_device([state.committed], draft.device), draft.vocab_size)
        self._source = Source(draft, state.models.draft_cache(state.capacity), law, history)
        self._growth: Growth | None = None
        draft.forward(prompt, self._source.cache, last=1)
        state.work.forwards += 1
        state.work.tokens += prompt.shape[1]
        state.clock.lap(Segment.DRAFT)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Return a tree that the topology grew from the draft's laws."""
        depth = min(plan.length.limit(), plan.depth)
        self._growth = None
        if depth < 1:
            return None
        nodes = plan.topology.nodes
        self._growth = Growth(self._source, state, plan.length, depth, nodes)
        return plan.topology.grow(self._growth)

    def observe(self, state: State, outcome: Outcome) -> None:
        """Roll the draft's cache back to the committed tokens."""
        source = self._source
        if source.law.needs_history:
            emitted = len(outcome.verdict.tokens)
            new = to_device([state.committed[-emitted:]], source.model.device)
            source.history.commit(new)
        if self._growth is not None:
            self._growth.commit(outcome.verdict.path)
        source.cache.truncate([min(source.cache.lengths[0], len(state.committed) - 1)])
