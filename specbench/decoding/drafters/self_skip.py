"""The target drafts for itself, with some of its sublayers left out.

The draft is written into the target's own cache behind the committed tokens, where it attends to
the keys and values that the whole model left there, and is truncated again before the drafter
returns. Verification then writes every slot of its tokens anew, so that nothing of the draft is
ever read by the target.
"""

from __future__ import annotations

from collections.abc import Sequence

from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.growth import Growth, Source
from specbench.decoding.search.sublayers import alternating
from specbench.decoding.state import Outcome, State
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.law import History
from specbench.models.base import LayerSkip
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class SelfSkip(Drafter):
    """Draft with the target and a fixed set of skipped sublayers, in the topology's shape.

    Zhang et al. 2024, "Draft & Verify: Lossless Large Language Model Acceleration via
    Self-Speculative Decoding", section 3.1. The release keeps the drafted keys and values behind
    the committed ones as well, and cuts them off before it verifies
    (github.com/dilab-zju/self-speculative-decoding, decoding.py).

    Args:
        attention: Blocks whose attention the draft leaves out.
        feed_forward: Blocks whose feed-forward part the draft leaves out. Where both are None,
            every second block between the first and the last is left out whole.

    Raises:
        ConfigError: If an index is negative, or only one of the two sets is given.
    """

    needs = frozenset({"layer_skip"})

    def __init__(
        self,
        attention: Sequence[int] | None = None,
        feed_forward: Sequence[int] | None = None,
    ) -> None:
        self._given = given_skip(attention, feed_forward)
        self._skip = self._given or LayerSkip()

    @property
    def skip(self) -> LayerSkip:
        """The sublayers that the next draft leaves out."""
        return self._skip

    def prepare(self, models: ModelPair) -> None:
        """Settle the set of skipped sublayers for the loaded target.

        Raises:
            ConfigError: If the target has no block of some index.
        """
        self._settle(models)

    def begin(self, state: State) -> None:
        """Note the law to draft under; the target has read the prompt already."""
        target = state.models.target
        self._settle(state.models)
        law = state.request.draft_law or state.request.law
        committed = to_device([state.committed], target.device)
        history = History(law, committed, target.vocab_size)
        self._source = Source(target, state.cache, law, history)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Return a tree grown from the laws of the skipped target."""
        depth = min(plan.length.limit(), plan.depth)
        if depth < 1:
            return None
        self._source.skip = self._skip
        start = state.cache.lengths[0]
        growth = Growth(self._source, state, plan.length, depth, plan.topology.nodes)
        tree = plan.topology.grow(growth)
        state.cache.truncate([start])
        return tree

    def observe(self, state: State, outcome: Outcome) -> None:
        """Keep the draft's history in step with the committed tokens."""
        if self._source.law.needs_history:
            emitted = len(outcome.verdict.tokens)
            new = to_device([state.committed[-emitted:]], self._source.model.device)
            self._source.history.commit(new)

    def _settle(self, models: ModelPair) -> None:
        layers = models.target.layers
        if self._given is None:
            self._skip = alternating(layers)
            return
        self._skip = self._given
        check_blocks(self._skip, layers, models.name)


def given_skip(
    attention: Sequence[int] | None, feed_forward: Sequence[int] | None
) -> LayerSkip | None:
    """Return the set that a user named, or None where none was.

    Raises:
        ConfigError: If an index is negative, or only one of the two lists is given.
    """
    if attention is None and feed_forward is None:
        return None
    if attention is None or feed_forward is None:
        raise ConfigError(
            "Only one of 'attention' and 'feed_forward' is given",
            "together they name the sublayers that the draft leaves out",
            "Give both, or neither; an empty list [] leaves nothing out.",
        )
    for index in (*attention, *feed_forward):
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ConfigError(
                f"{index!r} is not a block",
                "skipped sublayers are named by the number of their block, counted from 0",
                "Choose whole numbers from 0 to the number of blocks minus 1.",
            )
    return LayerSkip(frozenset(attention), frozenset(feed_forward))


def check_blocks(skip: LayerSkip, layers: int, name: str) -> None:
    """Refuse a set that names blocks which a model does not have.

    Raises:
        ConfigError: With the allowed range.
    """
    beyond = sorted(index for index in skip.attention | skip.feed_forward if index >= layers)
    if beyond:
        raise ConfigError(
            f"Block {beyond[0]} cannot be skipped",
            f"the target of '{name}' has {layers} blocks",
            f"Choose blocks from 0 to {layers - 1}.",
        )
