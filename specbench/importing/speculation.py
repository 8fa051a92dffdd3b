"""What servers say of the speculation in one response, as verification rounds.

vLLM writes `metrics.speculative_decoding` (--per-request-spec-decode-metrics), SGLang `spec_`
fields into `/generate`'s `meta_info` and into a chat completion's `sglext`, AIPerf
`spec_decode_acceptance` into its records, llama.cpp two totals into `timings`. What each of them
counts was read in their responses; all of them speak of rounds behind the prompt's forward.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from specbench.importing import reading
from specbench.importing.reading import BadRecord
from specbench.importing.records import Notes, Step

NO_ORDER = "The order of the rounds is not recorded: they stand by what they accepted"
"""What is odd where only a histogram is known."""


class Rounds(NamedTuple):
    """The verification rounds of one response.

    Attributes:
        steps: The rounds.
        prefill_tokens: Tokens that belong to the prompt's forward.
    """

    steps: tuple[Step, ...]
    prefill_tokens: int


class _Keys(NamedTuple):
    """How a server names what it says."""

    rounds: str
    accepted: str
    drafted: str
    histogram: str


_VLLM = _Keys(
    "num_spec_steps", "num_accepted_draft_tokens", "num_draft_tokens", "acceptance_histogram"
)
_SGLANG = _Keys(
    "spec_verify_ct", "spec_accept_token_num", "spec_draft_token_num", "spec_accept_histogram"
)
_SGLANG_CHAT = _Keys(
    "spec_verify_ct",
    "spec_num_correct_drafts",
    "spec_num_proposed_drafts",
    "spec_correct_drafts_histogram",
)


def of_vllm(said: Any, tokens: int, notes: Notes) -> Rounds | None:
    """Return the rounds of vLLM's or AIPerf's account of one request; None without one.

    Args:
        said: The object, or None.
        tokens: Generated tokens.
        notes: Told what is read otherwise than it is written.

    Raises:
        BadRecord: If the numbers contradict each other.
    """
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("per_step_accepted"), list):
        accepted = _counts(said, "per_step_accepted")
        drafted = (
            _counts(said, "per_step_drafted", len(accepted)) if "per_step_drafted" in said else None
        )
        return _rounds(accepted, drafted, tokens)
    return _of_histogram(said, _VLLM, tokens, notes)


def of_sglang(said: Any, tokens: int, notes: Notes) -> Rounds | None:
    """Return the rounds of SGLang's account of one request; None without one.

    Args:
        said: `meta_info` of `/generate`, or `spec_tokens_details` of a chat completion.
        tokens: Generated tokens.
        notes: Told what is read otherwise than it is written.

    Raises:
        BadRecord: If the numbers contradict each other.
    """
    if not isinstance(said, dict) or "spec_verify_ct" not in said:
        return None
    chat = _SGLANG_CHAT.accepted in said
    return _of_histogram(said, _SGLANG_CHAT if chat else _SGLANG, tokens, notes)


def of_totals(tokens: int, accepted: int) -> Rounds:
    """Return the rounds of a response whose accepted tokens are known in all.

    Every token that is neither accepted nor the prompt's forward's is one round's own (llama.cpp).

    Args:
        tokens: Generated tokens.
        accepted: Accepted draft tokens.

    Raises:
        BadRecord: If more was accepted than generated.
    """
    rounds = tokens - 1 - accepted
    if rounds < 0:
        raise BadRecord(f"{accepted} accepted tokens of {tokens} generated ones")
    return Rounds((Step(None, None),) * rounds, 1)


def _of_histogram(said: Mapping[str, Any], keys: _Keys, tokens: int, notes: Notes) -> Rounds | None:
    """Return the rounds of a histogram: how many accepted 0, 1, 2, ... draft tokens."""
    given = said.get(keys.histogram)
    if isinstance(given, dict):
        if not all(re.fullmatch(r"[0-9]{1,6}", place) for place in given):
            raise BadRecord(f"'{keys.histogram}' counts something else than tokens")
        given = [given.get(str(place), 0) for place in range(max(map(int, given), default=-1) + 1)]
    if not isinstance(given, list):
        return None
    counts = _counts({keys.histogram: given}, keys.histogram)
    if sum(counts) > reading.MOST_TOKENS:
        raise BadRecord(f"'{keys.histogram}' has {sum(counts)} rounds")
    accepted = [place for place, count in enumerate(counts) for _ in range(count)]
    for key, found in ((keys.rounds, len(accepted)), (keys.accepted, sum(accepted))):
        stated = said.get(key)
        if stated is not None and stated != found:
            raise BadRecord(f"'{keys.histogram}' says {found} where '{key}' is {stated}")
    drafted = said.get(keys.drafted)
    each = None
    if drafted is not None and accepted:
        total = reading.whole(drafted, f"'{keys.drafted}'", 0, reading.MOST_TOKENS)
        if total % len(accepted) == 0 and total // len(accepted) >= max(accepted):
            each = [total // len(accepted)] * len(accepted)
            notes.add("Draft tokens are recorded in all: every round has the same share of them")
    notes.add(NO_ORDER)
    return _rounds(accepted, each, tokens)


def _rounds(accepted: Sequence[int], drafted: Sequence[int] | None, tokens: int) -> Rounds:
    """Return rounds that emit what they accepted and a token of their own.

    The tokens beyond those are the prompt's forward's, 0 or 1; where fewer were generated, the
    last rounds were cut.
    """
    emitted = [count + 1 for count in accepted]
    before = tokens - sum(emitted)
    if before > 1:
        raise BadRecord(f"{len(accepted)} rounds emitted {sum(emitted)} of {tokens} tokens")
    place = len(emitted) - 1
    while before < 0 and place >= 0:
        cut = min(emitted[place], -before)
        emitted[place] -= cut
        before += cut
        place -= 1
    proposed: Sequence[int | None] = drafted or [None] * len(accepted)
    steps = tuple(map(Step, emitted, accepted, proposed))
    return Rounds(steps, max(before, 0))


def _counts(values: Mapping[str, Any], key: str, length: int | None = None) -> list[int]:
    return [
        reading.whole(each, f"'{key}'", 0, reading.MOST_TOKENS)
        for each in reading.listed(values, key, length)
    ]
