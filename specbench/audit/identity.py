"""Token identity with plain decoding, and what a difference means.

At temperature 0 a lossless decoder must emit plain decoding's tokens. Where it does not, the
first differing token is graded:

- `tie`: the logits of both tokens lie so close that the shape of a forward alone may swap them,
  as measured at that place (`specbench.audit.fidelity`).
- `diverged`: they lie further apart, but in the next wider type (float32 for bfloat16 and
  float16, float64 for float32) plain decoding and the decoder, run anew on the same prompt,
  agree or tie. Rounding explains the difference.
- `wrong`: they still differ in the wider type. No rounding explains it.

A difference that cannot be looked at in a wider type, because such a model does not fit or the
run is in float64 already, is graded as the run's own type allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from specbench.audit.fidelity import Fidelity, Grade, judge
from specbench.audit.verdict import Check, CheckOutcome, Kind
from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request
from specbench.models.pair import ModelPair

Judge = Callable[[ModelPair, Request, tuple[int, ...], tuple[int, ...]], Fidelity]
"""Grades an output: models, request, plain decoding's tokens, the decoder's tokens."""

_SEVERE = (Grade.DIVERGED, Grade.WRONG)


class ReadyDecoder(NamedTuple):
    """A decoder that has looked at the models that it runs on.

    Attributes:
        decoder: The decoder.
        models: The models, bound to the law.
    """

    decoder: Decoder
    models: ModelPair


def compare_tokens(
    arm: ReadyDecoder,
    requests: Sequence[Request],
    judged: Judge,
    widened: Callable[[], ReadyDecoder | None] = lambda: None,
    advance: Callable[[], None] = lambda: None,
) -> list[Fidelity]:
    """Run a decoder and plain decoding on some prompts, and grade each pair of outputs.

    Args:
        arm: The decoder.
        requests: What to decode.
        judged: Grades what differs.
        widened: Returns the same in the next wider type, or None where there is none. Asked for
            at the first grave difference only.
        advance: Called after every request.
    """
    grades = []
    for request in requests:
        verdict = _graded(arm, request, judged)
        if verdict.grade in _SEVERE:
            wider = widened()
            if wider is not None:
                again = _graded(wider, request, judged)
                grade = Grade.WRONG if again.grade in _SEVERE else Grade.DIVERGED
                verdict = verdict._replace(grade=grade)
        grades.append(verdict)
        advance()
    return grades


def judge_greedy(
    models: ModelPair, request: Request, reference: tuple[int, ...], output: tuple[int, ...]
) -> Fidelity:
    """Grade a greedy output by the logits of the two tokens at the first difference."""
    return judge(models, request.law, request.prompt, reference, output)


def identity_check(
    grades: Sequence[Fidelity], name: str, kind: Kind, promised: bool, wider: bool
) -> Check:
    """Return the check that sums up some grades.

    Args:
        grades: One for each prompt.
        name: What was compared.
        kind: `GREEDY_IDENTITY` or `ORACLE`.
        promised: Whether the method promises the same tokens; else the value is only shown.
        wider: Whether differences were looked at in a wider type.
    """
    count = Counter(verdict.grade for verdict in grades)
    if not promised:
        outcome = CheckOutcome.MEASURED
    elif count[Grade.WRONG]:
        outcome = CheckOutcome.FAIL
    elif count[Grade.DIVERGED] and not wider:
        outcome = CheckOutcome.INCONCLUSIVE
    else:
        outcome = CheckOutcome.PASS
    words = [f"{number} {grade}" for grade in Grade if (number := count[grade])]
    places = [verdict.position for verdict in grades if verdict.grade in _SEVERE]
    first = [f"first at token {place + 1}" for place in places[:1] if place is not None]
    unresolved = ["no wider type to compare in"] if outcome is CheckOutcome.INCONCLUSIVE else []
    return Check(
        name=name,
        kind=kind,
        outcome=outcome,
        statistic=float(count[Grade.WRONG]),
        bound=0.0 if promised else None,
        samples=len(grades),
        detail=", ".join([*words, *first, *unresolved]),
    )


def _graded(arm: ReadyDecoder, request: Request, judged: Judge) -> Fidelity:
    reference = _tokens(ReadyDecoder(Autoregressive(), arm.models), request)
    return judged(arm.models, request, reference, _tokens(arm, request))


def _tokens(arm: ReadyDecoder, request: Request) -> tuple[int, ...]:
    arm.decoder.reset()
    arm.models.settle(len(request.prompt) + request.max_new_tokens)
    clock = clock_for(arm.models.target.device)
    return tuple(arm.decoder.generate(arm.models, request, clock).tokens)
