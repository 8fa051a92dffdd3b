"""The one generic loop: propose, score, verify, commit.

A method is a drafter, a topology, a length policy and a verifier; this loop runs any of their
compositions. Chains and trees differ only in the ancestor mask.

Invariant: after each round the target's cache holds everything committed but the newest token,
which is fed as the root of the next round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.drafters.base import Drafter, Outcome, Plan, Prefill
from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.models.base import Taps
from specbench.models.pair import ModelPair
from specbench.transfer import to_device

NODE_RESERVE = 256
"""Cache slots kept free for the nodes of one draft tree."""


class Probe(Protocol):
    """Watches rounds from outside, in untimed replays."""

    def __call__(self, scored: Scored, verdict: Verdict) -> None:
        """See one scored tree and what was decided."""


class DraftVerify(Decoder):
    """Speculative decoding as a composition of four parts.

    Args:
        drafter: Proposes trees.
        topology: How they branch.
        length: When they end.
        verifier: Which path is kept and what follows it.

    Attributes:
        probe: Called after every round where it is set; timed runs leave it None.
    """

    probe: Probe | None = None

    def __init__(
        self, drafter: Drafter, topology: Topology, length: LengthPolicy, verifier: Verifier
    ) -> None:
        self.drafter = drafter
        self.topology = topology
        self.length = length
        self.verifier = verifier
        self.carries_state = drafter.carries_state
        self.needs = drafter.needs | topology.needs | verifier.needs

    def prepare(self, models: ModelPair) -> None:
        """Show the loaded models to the parts, before anything is timed."""
        self.drafter.prepare(models)
        self.topology.prepare(models)
        self.length.prepare(models)
        self.verifier.prepare(models)

    def inputs(self) -> dict[str, str]:
        """Return digests of what the drafter reads beside the models."""
        return self.drafter.inputs()

    def reset(self) -> None:
        """Forget the drafter's carried state."""
        self.drafter.reset()

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots that its trees need."""
        return max(NODE_RESERVE, self.topology.nodes + self.drafter.nodes) + 1

    def rounds(self, session: Session) -> Rounds:
        """Read the prompt with both models; then propose, score, verify, commit."""
        request, clock, target = session.request, session.clock, session.target
        law, history, cache, device = target.law, target.history, target.cache, target.model.device
        tapped = self.drafter.taps(session.models)
        taps = Taps(tapped, every=self.drafter.prompt_states) if tapped else None
        wanted = 0 if self.drafter.prompt_logits else 1
        length = self.length.begin()

        logits = session.feed(session.prompt, last=wanted, taps=taps)
        if self.verifier.greedy_start:
            token = law.argmax(logits[:, -1], history.now())
        else:
            token = session.next_token(logits[:, -1])
        session.commit(session.read(token))
        prefill = Prefill(logits, tuple(taps.states) if taps else ())
        drafting = self.drafter.begin(session, prefill)
        yield session.close()

        while True:
            base = cache.lengths[0]
            plan = Plan(self.topology, length, session.budget)
            tree = drafting.propose(session, plan)
            clock.lap(Segment.DRAFT)
            root = to_device([session.committed[-1:]], device)
            tree = tree if tree is not None else DraftTree.chain(root[:, :0])
            assert tree.depth <= max(plan.depth, 0), "a draft deeper than the request has room for"
            mask = tree.mask()
            fed = torch.cat([root, tree.tokens], 1)
            clock.launch()
            logits = drafting.score(session, fed, mask, taps)
            assert cache.lengths[0] == base + fed.shape[1], "a draft was left in the target's cache"

            seen = history.along(tree.tokens, mask.ancestors if mask else None)
            position, streams = len(session.committed), (request.streams,)
            scored = Scored(
                tree,
                logits,
                law,
                seen,
                streams,
                (position,),
                clock,
                session.stops,
                request.choices,
            )
            verdict = self.verifier.verify(scored)[0]
            cache.keep([base], [[0, *(node + 1 for node in verdict.path)]])
            session.commit(verdict.tokens)
            session.check_cache()
            kept = _kept(taps.states, verdict.path) if taps else ()
            drafting.observe(session, Outcome(tree, verdict, scored, kept))
            proposed, accepted = tree.reach(verdict.drafted, session.stops), len(verdict.path)
            length.update(proposed, accepted)
            if self.probe is not None:
                self.probe(scored, verdict)
            yield session.close(proposed=proposed, accepted=accepted, nodes=tree.size)


def _kept(states: Sequence[Tensor], path: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the states [1, A + 1, C] of the root and an accepted path, of [1, N + 1, C]."""
    if list(path) == list(range(len(path))):
        return tuple(state[:, : len(path) + 1] for state in states)
    rows = to_device([0, *(node + 1 for node in path)], states[0].device)
    return tuple(state[:, rows] for state in states)
