"""Token identity with plain decoding above temperature 0, under one table of noise.

Every position has one random number for good, and plain decoding turns it into the token of that
position. A verifier that accepts exactly the drafts which plain decoding would have drawn must
emit plain decoding's tokens, whatever drafts it is shown and however many. Any other difference
is an error around the random choices: a stale cache, a wrong mask or position, a law of the wrong
node, a draft that is tested against the wrong column. Laws cannot see such an error more sharply:
one wrong token is enough.

The audit puts that verifier in the place of a method's own:

- in the Jacobi family (SJD, MC-SJD, GSD), the acceptance rule `oracle`, with the method's window,
  coupling and initial guess;
- in draft-verify methods, `SampleMatch`, with the method's drafter, topology and length;
- Jacobi decoding and lookahead are such decoders themselves.

What the method's own rule does with its random numbers, only the sampled law test can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from specbench.audit.fidelity import (
    Fidelity,
    Grade,
    first_difference,
    logits_by_shape,
    may_cross,
    resolution,
    seen_before,
    severe_grade,
)
from specbench.decoding.base import Decoder
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.loops.lookahead import Lookahead
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import Request
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.schema.build import instantiate, locate


def oracle_of(node: Mapping[str, Any]) -> Decoder | None:
    """Return a method's decoder with the oracle as its acceptance rule.

    Args:
        node: The method's `decoder` node.

    Returns:
        The decoder, or None where it has no rule that could be replaced.

    Raises:
        ConfigError: If the node cannot be built.
    """
    target = locate(str(node["_target_"]))
    if not isinstance(target, type):
        return None
    if issubclass(target, SpeculativeJacobi) and target.__init__ is SpeculativeJacobi.__init__:
        oracle: Decoder = instantiate({**node, "acceptance": "oracle"})
        return oracle
    if issubclass(target, Jacobi | Lookahead):
        coupled: Decoder = instantiate(node)
        return coupled
    if issubclass(target, DraftVerify):
        decoder: DraftVerify = instantiate(node)
        decoder.verifier = SampleMatch()
        return decoder
    return None


def judge_coupled(
    models: ModelPair, request: Request, reference: tuple[int, ...], output: tuple[int, ...]
) -> Fidelity:
    """Grade an output that shares plain decoding's random numbers.

    Both tokens at the first difference come from one number by inverting the cumulative law. They
    tie where that number lies so close to the other token's stretch that forwards of another shape
    may move the border across it, as measured at this place.

    Args:
        models: The pair that made both.
        request: What was asked; its law is not greedy.
        reference: Plain decoding's tokens.
        output: The decoder's.

    Returns:
        The verdict; its gap is a probability.
    """
    place = first_difference(models, reference, output)
    if isinstance(place, Fidelity):
        return place
    context = [*request.prompt, *reference[:place]]
    logits = logits_by_shape(models, context)
    laws = request.law.probabilities(logits, seen_before(models, request.law, context))
    ends = laws.cumsum(-1)
    number = request.streams.uniform(len(context), Purpose.SAMPLE) * ends[:, -1]
    end = ends[:, output[place]]
    start = end - laws[:, output[place]]
    outside = torch.maximum(start - number, number - end)
    least = resolution(models, logits) / request.law.temperature
    if request.law.top_k or (request.law.top_p or 1) < 1:  # a token at the cut's edge may swap
        least += float(laws[laws > 0].min())
    tied = may_cross(outside, least)
    grade = Grade.TIE if tied else severe_grade(models)
    return Fidelity(grade, place, max(float(outside.mean()), 0.0))
