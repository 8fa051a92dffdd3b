"""The target drafts for itself, with some of its sublayers left out.

The draft is written into the target's own cache behind the committed tokens, where it attends to
the keys and values that the whole model left there, and is truncated again before the drafter
returns. Verification then writes every slot of its tokens anew, so that nothing of the draft is
ever read by the target.
"""

from __future__ import annotations

from collections.abc import Sequence

from specbench.decoding.drafters.base import Drafter, Drafting, Plan, Prefill
from specbench.decoding.ground import DraftModel
from specbench.decoding.growth import Growth
from specbench.decoding.search.sublayers import alternating
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.models.base import LayerSkip
from specbench.models.pair import ModelPair


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

    def prepare(self, models: ModelPair) -> None:
        """Refuse, before anything is timed, blocks that the loaded target does not have.

        Raises:
            ConfigError: If the target has no block of some index.
        """
        self.skip_for(models)

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Draft with the target, which has read the prompt already."""
        return SkipDrafting(session, self.skip_for(session.models))

    def skip_for(self, models: ModelPair) -> LayerSkip:
        """Return the sublayers that drafts of a pair leave out.

        Raises:
            ConfigError: If the target has no block of some index.
        """
        if self._given is None:
            return alternating(models.target.layers)
        check_blocks(self._given, models.target.layers, models.name)
        return self._given


class SkipDrafting(Drafting):
    """One request's drafts by the target without some sublayers.

    Args:
        session: The request.
        skip: What is left out.
    """

    def __init__(self, session: Session, skip: LayerSkip) -> None:
        self._role = session.drafting(session.target.model, session.target.cache)
        self._role.skip = skip

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a tree grown from the laws of the skipped target."""
        depth = plan.levels
        if depth < 1:
            return None
        cache = session.target.cache
        start = cache.lengths[0]
        growth = Growth(DraftModel(self._role), session, plan.length, depth, plan.topology.nodes)
        tree = plan.topology.grow(growth)
        cache.truncate([start])
        return tree


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
