"""The one generic loop: propose, score, verify, commit.

A method is a drafter, a topology, a length policy and a verifier; this loop runs any of their
compositions. Chains and trees differ only in the ancestor mask.

Invariant: after each round the target's cache holds everything committed but the newest token,
which is fed as the root of the next round.
"""

from __future__ import annotations

import torch

from specbench.clock import Clock, Segment
from specbench.decoding.base import Tally, check_cache, room
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.loops.autoregressive import next_token
from specbench.decoding.request import Request
from specbench.decoding.state import Outcome, State
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verifier
from specbench.law import History
from specbench.models.pair import ModelPair

NODE_RESERVE = 256
"""Cache slots kept free for the nodes of one draft tree."""


class DraftVerify:
    """Speculative decoding as a composition of four parts.

    Args:
        drafter: Proposes trees.
        topology: How they branch.
        length: When they end.
        verifier: Which path is kept and what follows it.
    """

    def __init__(
        self, drafter: Drafter, topology: Topology, length: LengthPolicy, verifier: Verifier
    ) -> None:
        self._drafter = drafter
        self._topology = topology
        self._length = length
        self._verifier = verifier
        self.carries_state = drafter.carries_state

    @property
    def needs(self) -> frozenset[str]:
        """What the model pair must have: the drafter's needs."""
        return self._drafter.needs

    def reset(self) -> None:
        """Forget the drafter's carried state."""
        self._drafter.reset()

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        target = models.target
        capacity = room(models, request, NODE_RESERVE)
        clock.start()
        cache = models.target_cache(capacity)
        state = State(models, request, list(request.prompt), clock, capacity)
        prompt = torch.tensor([request.prompt], device=target.device)
        history = History(request.law, prompt, target.vocab_size)
        tally = Tally(request, clock)
        self._length.reset()
        self._drafter.begin(state)

        logits = target.forward(prompt, cache, last=1)[:, -1]
        clock.lap(Segment.TARGET)
        token = next_token(logits, request, history, len(state.committed))
        history.commit(token[:, None])
        count = Count(0, 0, 1, 0, 1, prompt.shape[1], *state.work.take())
        state.committed.extend(tally.add([int(token)], count))

        while tally.cut is None:
            plan = Plan(self._topology, self._length, state.budget)
            tree = self._drafter.propose(state, plan)
            clock.lap(Segment.DRAFT)
            root = torch.tensor([state.committed[-1:]], device=target.device)
            tree = tree if tree is not None else DraftTree.chain(root[:, :0])
            mask = tree.mask()
            base = cache.lengths[0]
            logits = target.forward(torch.cat([root, tree.tokens], 1), cache, mask=mask)
            clock.lap(Segment.TARGET)

            seen = history.along(tree.tokens, mask.ancestors if mask else None)
            position = len(state.committed)
            verdict = self._verifier.verify(
                Scored(tree, logits, request.law, seen, (request.streams,), (position,))
            )[0]
            history.commit(torch.tensor([verdict.tokens], device=target.device))
            cache.keep([base], [[0, *(node + 1 for node in verdict.path)]])
            state.committed.extend(verdict.tokens)
            check_cache(cache, state.committed)
            self._drafter.observe(state, Outcome(tree, verdict))
            self._length.update(tree.depth, len(verdict.path))
            tally.add(
                verdict.tokens,
                Count(
                    tree.depth,
                    len(verdict.path),
                    len(verdict.tokens),
                    tree.size,
                    1,
                    tree.size + 1,
                    *state.work.take(),
                ),
            )
        return tally.finish()
