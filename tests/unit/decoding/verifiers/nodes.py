"""One node of a tree, with every draw of its children and every choice of the verifier."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch

from specbench.decoding.topologies.top_plus_one import rest_law
from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.decoding.verifiers.base import Scored
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.enumeration import Script

F5_P = torch.tensor([0.10, 0.20, 0.30, 0.25, 0.15], dtype=torch.float64)
F5_Q = torch.tensor([0.40, 0.25, 0.15, 0.10, 0.10], dtype=torch.float64)

WR, WOR = DrawKind.WITH_REPLACEMENT, DrawKind.WITHOUT_REPLACEMENT
POINT, HYBRID = DrawKind.POINT, DrawKind.HYBRID


def random_law(vocab, generator, zeros=0):
    law = torch.rand(vocab, generator=generator, dtype=torch.float64)
    law[torch.randperm(vocab, generator=generator)[:zeros]] = 0.0
    return law / law.sum()


def draws_of(kind, q, count):
    """Yield (drawn tokens, probability, law that the record states)."""
    vocab = len(q)
    if kind is POINT:
        yield tuple(q.argsort(descending=True, stable=True)[:count].tolist()), 1.0, None
    elif kind is HYBRID:
        top = q.topk(count - 1).indices
        rest = rest_law(q[None], top[None])[0]
        for token in range(vocab):
            yield (*top.tolist(), token), float(rest[token]), rest
    elif kind is WR:
        for tokens in itertools.product(range(vocab), repeat=count):
            yield tokens, float(q[list(tokens)].prod()), q
    else:
        for tokens in itertools.permutations(range(vocab), min(count, int((q > 0).sum()))):
            weight, left = 1.0, q.clone()
            for token in tokens:
                weight *= float(left[token] / left.sum())
                left[token] = 0.0
            yield tokens, weight, q


def node_scored(p, tokens, kind, law, temperature=1.0):
    """Return one expanded root whose children are certain of token 0, with merged repeats."""
    distinct = list(dict.fromkeys(tokens))
    offers = (tuple(distinct.index(token) for token in tokens),)
    logits = torch.full((1, len(distinct) + 1, len(p)), -torch.inf, dtype=p.dtype)
    logits[0, 0] = p.log()
    logits[0, 1:, 0] = 0.0
    draws = Draws(kind, (-1,), None if law is None else law[None, None], offers)
    tree = DraftTree(torch.tensor([distinct]), (-1,) * len(distinct), draws)
    return Scored(tree, logits, Law(temperature), None, (Streams(0, "node"),), (5,))


def outcomes(verifier, scored):
    """Yield (verdict, probability) for every choice of the verifier."""
    pending = [[]]
    while pending:
        script = Script(pending.pop())
        verdict = verifier.verify(replace(scored, choices=script))[0]
        yield verdict, script.weight
        pending += script.branches


def node_law(verifier, p, q, kind, count):
    """Return the law of the emitted token, [V], and the probability that a child is accepted."""
    law, accepted = torch.zeros(len(p), dtype=torch.float64), 0.0
    for tokens, weight, stated in draws_of(kind, q, count):
        if weight == 0:
            continue
        for verdict, chance in outcomes(verifier, node_scored(p, tokens, kind, stated)):
            law[verdict.tokens[0]] += weight * chance
            accepted += weight * chance * (len(verdict.path) > 0)
    return law, accepted
