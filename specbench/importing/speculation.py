"""What servers say of the speculation in one response, as verification rounds.

vLLM writes `metrics.speculative_decoding` (--per-request-spec-decode-metrics), SGLang `spec_`
fields into `/generate`'s `meta_info` and into a chat completion's `sglext`, AIPerf
`spec_decode_acceptance` into its records, llama.cpp two totals into `timings`. What each of them
counts was read in their responses; all of them speak of rounds behind the prompt's forward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from specbench.importing.fields import MOST_TOKENS, BadRecord, Count, Fields
from specbench.importing.records import Notes, PublishedRound, Turn


def _listed(histogram: Any) -> Any:
    """Return a histogram that is written as an object, {accepted: rounds}, as a list."""
    if not isinstance(histogram, dict):
        return histogram
    if not all(re.fullmatch(r"[0-9]{1,6}", place) for place in histogram):
        raise ValueError("counts of tokens")
    return [histogram.get(str(n), 0) for n in range(max(map(int, histogram), default=-1) + 1)]


class _Account(Fields):
    """One server's account of one response, under vLLM's names or either of SGLang's."""

    rounds: Count | None = Field(
        None, validation_alias=AliasChoices("num_spec_steps", "spec_verify_ct")
    )
    accepted: Count | None = Field(
        None,
        validation_alias=AliasChoices(
            "num_accepted_draft_tokens", "spec_num_correct_drafts", "spec_accept_token_num"
        ),
    )
    drafted: Count | None = Field(
        None,
        validation_alias=AliasChoices(
            "num_draft_tokens", "spec_num_proposed_drafts", "spec_draft_token_num"
        ),
    )
    histogram: Annotated[list[Count] | None, BeforeValidator(_listed)] = Field(
        None,
        validation_alias=AliasChoices(
            "acceptance_histogram", "spec_correct_drafts_histogram", "spec_accept_histogram"
        ),
    )
    per_step_accepted: list[Count] | None = None
    per_step_drafted: list[Count] | None = None


def with_rounds(turn: Turn, said: Any, notes: Notes) -> Turn:
    """Return a turn with the rounds of a server's account of it; as it is without one.

    Args:
        turn: One request.
        said: The object of vLLM or AIPerf; of SGLang `meta_info` of `/generate`, or
            `spec_tokens_details` of a chat completion.
        notes: Told what is read otherwise than it is written.

    Raises:
        BadRecord: If the numbers contradict each other.
    """
    if not isinstance(said, dict):
        return turn
    account = _Account.of(said)
    accepted, drafted = account.per_step_accepted, account.per_step_drafted
    if accepted is None and account.histogram is None:
        return turn
    if accepted is None:
        accepted, drafted = _of_histogram(account, notes)
    if drafted is not None and len(drafted) != len(accepted):
        raise BadRecord(f"'per_step_drafted' does not have {len(accepted)} entries")
    # A round emits what it accepted and a token of its own. The tokens beyond are the prompt's
    # forward's, 0 or 1; where fewer were generated, the last rounds were cut.
    emitted = [count + 1 for count in accepted]
    before = turn.new_tokens - sum(emitted)
    if before > 1:
        raise BadRecord(
            f"{len(accepted)} rounds emitted {sum(emitted)} of {turn.new_tokens} tokens"
        )
    for place in reversed(range(len(emitted))):
        cut = min(emitted[place], max(0, -before))
        emitted[place] -= cut
        before += cut
    proposed: Sequence[int | None] = drafted or [None] * len(accepted)
    rounds = tuple(map(PublishedRound, emitted, accepted, proposed))
    return replace(turn, rounds=rounds, prefill_tokens=max(before, 0), prefill_forwards=1)


def with_accepted_total(turn: Turn, accepted: int) -> Turn:
    """Return a turn with the rounds of a response whose accepted tokens are known in all.

    Every token that is neither accepted nor the prompt's forward's is one round's own (llama.cpp).

    Raises:
        BadRecord: If more was accepted than generated.
    """
    count = turn.new_tokens - 1 - accepted
    if count < 0:
        raise BadRecord(f"{accepted} accepted tokens of {turn.new_tokens} generated ones")
    rounds = (PublishedRound(None, None),) * count
    return replace(turn, rounds=rounds, prefill_tokens=1, prefill_forwards=1)


def _of_histogram(account: _Account, notes: Notes) -> tuple[list[int], list[int] | None]:
    """Return what each round accepted and proposed, of how many accepted 0, 1, 2, ... tokens."""
    counts = account.histogram or []
    if sum(counts) > MOST_TOKENS:
        raise BadRecord(f"the histogram of accepted tokens has {sum(counts)} rounds")
    accepted = [place for place, count in enumerate(counts) for _ in range(count)]
    for what, stated, found in (
        ("rounds", account.rounds, len(accepted)),
        ("accepted tokens", account.accepted, sum(accepted)),
    ):
        if stated is not None and stated != found:
            raise BadRecord(f"the histogram has {found} {what} where {stated} are stated")
    notes.add("The order of the rounds is not recorded: they stand by what they accepted")
    if account.drafted is None or not accepted:
        return accepted, None
    share, rest = divmod(account.drafted, len(accepted))
    if rest or share < max(accepted):
        return accepted, None
    notes.add("Draft tokens are recorded in all: every round has the same share of them")
    return accepted, [share] * len(accepted)
