"""The one generic loop: propose, score, verify, commit.

A method is a drafter, a topology, a length policy and a verifier; this loop runs any of their
compositions. Chains and trees differ only in the ancestor mask.

Invariant: after each round the target's cache holds everything committed but the newest token,
which is fed as the root of the next round.
"""

from __future__ import annotations

from typing import Protocol

import torch

from specbench.clock import Clock, Segment
from specbench.decoding.base import Decoder, Tally, check_cache, room
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.loops.autoregressive import next_token
from specbench.decoding.reading import read
from specbench.decoding.request import Request
from specbench.decoding.state import Outcome, Prefill, State
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.law import History
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

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        target = models.target
        reserve = max(NODE_RESERVE, self.topology.nodes + self.drafter.nodes) + 1
        capacity = room(models, request, reserve)
        clock.start()
        cache = models.target_cache(capacity)
        prompt = to_device([request.prompt], target.device)
        history = History(request.law, prompt, target.vocab_size)
        tally = Tally(request, clock)
        self.length.reset()

        taps = Taps(self.drafter.taps) if self.drafter.taps else None
        wanted = 0 if self.drafter.prompt_logits else 1
        logits = target.forward(prompt, cache, last=wanted, taps=taps)
        clock.lap(Segment.TARGET)
        committed = list(request.prompt)
        if self.verifier.greedy_start:
            token = request.law.argmax(logits[:, -1], history.now())
        else:
            token = next_token(logits[:, -1], request, history, len(committed))
        history.commit(token[:, None])
        committed += read(token, clock)
        prefill = Prefill(logits, tuple(taps.states) if taps else ())
        state = State(models, request, committed, clock, capacity, cache, prefill)
        self.drafter.begin(state)
        count = Count(0, 0, 1, 0, 1, prompt.shape[1], *state.work.take())
        tally.add(committed[-1:], count)

        while tally.cut is None:
            plan = Plan(self.topology, self.length, state.budget)
            tree = self.drafter.propose(state, plan)
            clock.lap(Segment.DRAFT)
            root = to_device([committed[-1:]], target.device)
            tree = tree if tree is not None else DraftTree.chain(root[:, :0])
            assert tree.depth <= max(plan.depth, 0), "a draft deeper than the request has room for"
            mask = tree.mask()
            base = cache.lengths[0]
            fed = torch.cat([root, tree.tokens], 1)
            clock.launch()
            logits = target.forward(fed, cache, mask=mask, taps=taps)
            clock.lap(Segment.TARGET)

            seen = history.along(tree.tokens, mask.ancestors if mask else None)
            position = len(committed)
            streams = (request.streams,)
            scored = Scored(
                tree, logits, request.law, seen, streams, (position,), clock, state.stops
            )
            verdict = self.verifier.verify(scored)[0]
            if request.law.needs_history:
                history.commit(to_device([verdict.tokens], target.device))
            cache.keep([base], [[0, *(node + 1 for node in verdict.path)]])
            committed.extend(verdict.tokens)
            check_cache(cache, committed)
            hidden = tuple(taps.states) if taps else ()
            self.drafter.observe(state, Outcome(tree, verdict, scored, hidden))
            proposed = tree.reach(verdict.drafted, state.stops)
            self.length.update(proposed, len(verdict.path))
            if self.probe is not None:
                self.probe(scored, verdict)
            tally.add(
                verdict.tokens,
                Count(
                    proposed,
                    len(verdict.path),
                    len(verdict.tokens),
                    tree.size,
                    1,
                    tree.size + 1,
                    *state.work.take(),
                ),
            )
        return tally.finish()
