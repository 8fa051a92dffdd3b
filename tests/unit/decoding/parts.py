"""Small decoders and drafters that tests compose."""

from __future__ import annotations

import torch

from specbench.choices import BY_NUMBER
from specbench.clock import CpuClock
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.base import Drafter
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.drafters.prompt_lookup import PromptLookup
from specbench.decoding.ledger import Count, Work
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams


def table_pair(vocab=3, order=2, sharpness=1.0, seed=0):
    target = TableModel(markov_table(order, vocab, seed, sharpness), vocab, "target")
    draft = TableModel(markov_table(order, vocab, seed + 1, sharpness), vocab, "draft")
    return ModelPair("table", target, draft)


def token_sd(draft_length=2, verifier=None):
    return DraftVerify(ModelDrafter(), Chain(), Constant(draft_length), verifier or TokenSD())


def pld(draft_length=4, verifier=None, **options):
    drafter = PromptLookup(draft_length=draft_length, **options)
    return DraftVerify(drafter, Chain(), Constant(draft_length), verifier or SampleMatch())


class RandomTrees(Drafter):
    """Proposes random trees of random tokens: the worst drafter, for identity tests."""

    def __init__(self, seed, nodes=12, vocab=5):
        self._generator = torch.Generator().manual_seed(seed)
        self._nodes = nodes
        self._vocab = vocab

    def _random(self, high):
        return int(torch.randint(0, high, (1,), generator=self._generator))

    def propose(self, state, plan):
        parents, depths, tokens = [], [], []
        for _ in range(self._random(self._nodes + 1)):
            parent = self._random(len(tokens) + 1) - 1
            depth = 1 if parent < 0 else depths[parent] + 1
            siblings = {t for t, p in zip(tokens, parents, strict=True) if p == parent}
            token = self._random(self._vocab)
            if depth <= plan.depth and token not in siblings:
                parents.append(parent)
                depths.append(depth)
                tokens.append(token)
        return DraftTree(torch.tensor([tokens]), tuple(parents)) if tokens else None


def random_trees(seed, verifier=None, **options):
    return DraftVerify(
        RandomTrees(seed, **options), Chain(), Constant(99), verifier or SampleMatch()
    )


def count_of(proposed, accepted, emitted, nodes, *work):
    """Return a round's counts; `work` is forwards and tokens of the target, then of the draft."""
    pairs = zip(("target", "draft"), zip(work[::2], work[1::2], strict=True), strict=False)
    fed = {role: Work(*pair) for role, pair in pairs if pair[0]}
    return Count(proposed, accepted, emitted, nodes, fed)


def generate(decoder, models, law, prompt=(0, 1), count=24, seed=0, stop=(), choices=BY_NUMBER):
    streams, stops = Streams(seed, "test"), StopTokens(frozenset(stop))
    request = Request(tuple(prompt), count, law, streams, stops, choices=choices)
    return decoder.generate(models, request, CpuClock())


__all__ = [
    "Autoregressive",
    "RandomTrees",
    "count_of",
    "generate",
    "pld",
    "random_trees",
    "table_pair",
    "token_sd",
]


def cyclic_table(period, vocab_size):
    """Return the deterministic law that counts 0, 1, ..., period - 1, 0, ... by position."""

    def table(context):
        logits = torch.full((vocab_size,), -torch.inf, dtype=torch.float64)
        logits[len(context) % period] = 0.0
        return logits

    return table
