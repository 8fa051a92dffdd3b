"""What result files say of a method that holds on any machine, and what it cost on theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from specbench.errors import ResultsError
from specbench.predict.acceptance import (
    EVIDENCE,
    Acceptance,
    expected_accepted,
    expected_proposed,
    rates_of,
)
from specbench.predict.recorded import RecordedModel, recorded_model
from specbench.predict.tally import Tally, tallies_of
from specbench.schema.asked import Asked
from specbench.schema.result import BASELINE, METHOD, FileMetadata, MethodInfo
from specbench.store import ResultSet

Drafter = Literal["model", "self", "lookup"]
"""A draft model; the target with parts left out; or neither: copied, retrieved or guessed."""

_ONE_FORWARD = 0.01
"""How far target forwards per round may lie from 1 where a draft's length can be varied."""

_SAME_NODES = 0.05
"""Share by which the fed tokens may differ from draft nodes and the token before them."""


class RoundWork(NamedTuple):
    """Mean counts of one verification round of one sequence.

    Attributes:
        tokens: Tokens that the round yields, the bonus or corrected one included.
        target_forwards: Calls of the target.
        target_tokens: Tokens fed to the target in all of them.
        draft_forwards: Calls of the draft model, or of the target with parts left out.
        draft_tokens: Tokens fed to it in all of them.
    """

    tokens: float
    target_forwards: float
    target_tokens: float
    draft_forwards: float
    draft_tokens: float


class RoundCost(NamedTuple):
    """Mean times of the file's own machine, in units of its plain decoding's target forward.

    Attributes:
        draft: A verification round's drafting.
        target: Its target forwards.
        host: Everything else in it.
        plain_host: Everything beside the target's forward in a step of plain decoding.
        observed_speedup: Decode tokens per second over plain decoding's in the same files.
        plain_seconds: Seconds of a target forward in plain decoding.
    """

    draft: float
    target: float
    host: float
    plain_host: float
    observed_speedup: float
    plain_seconds: float


@dataclass(frozen=True)
class Profile:
    """One method as some result files measured it.

    Attributes:
        label: The method's id, with the parameters that tell it from others of its name.
        method: What it says of itself.
        model: The measured model's id.
        target: Checkpoint of the measured target, as its entry names it.
        draft: Checkpoint of the measured draft, or None.
        tasks: The tasks, sorted.
        law: The target law.
        device: The device that measured.
        rounds: Number of verification rounds.
        drafter: What drafts.
        acceptance: Acceptance by position.
        work: Mean counts of a verification round, as measured.
        kept: Emitted tokens over accepted tokens and bonus: below 1 by what the cuts at
            end-of-text and at the length limit drop.
        fixed: Why the draft length cannot be varied, or empty.
        rows: Sequences that the target computes for each request: 2 under classifier-free
            guidance, else 1.
        cost: Times, or None where no baseline ran.
        notes: What was read otherwise than it stands, as sentences.
        dtype: Compute dtype.
        models: The models that ran, by role, where the files describe them.
        totals: Sums over the measurements of `target_forwards`, `draft_forwards` and `total_ns`.
        baseline_totals: The same of plain decoding.
    """

    label: str
    method: MethodInfo
    model: str
    target: str
    draft: str | None
    tasks: tuple[str, ...]
    law: str
    device: str
    rounds: int
    drafter: Drafter
    acceptance: Acceptance
    work: RoundWork
    kept: float
    fixed: str
    rows: int
    cost: RoundCost | None
    notes: tuple[str, ...] = ()
    dtype: str = ""
    models: Mapping[str, RecordedModel] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    baseline_totals: Mapping[str, int] = field(default_factory=dict)

    @property
    def setting(self) -> str:
        """Model, law and device: within them times can be set side by side."""
        return f"{self.model}, {self.law}, {self.device}"

    @property
    def branches(self) -> bool:
        """Whether a draft is a tree: more tokens are verified than its longest path has."""
        levels = sum(self.acceptance.proposed)
        return self.work.target_tokens - 1.0 > (1.0 + _SAME_NODES) * levels

    @property
    def acceptance_rate(self) -> float:
        """Chance that a tested draft token is accepted, all positions pooled."""
        tested = self.acceptance.tested
        hits = sum(r * n for r, n in zip(self.acceptance.accepted, tested, strict=True))
        return float(hits / sum(tested)) if sum(tested) else 0.0

    def extrapolated(self, length: int) -> bool:
        """Return whether a draft of this length goes past what was measured often enough."""
        acceptance = self.acceptance
        return length > acceptance.measured_length or acceptance.tested[length - 1] < EVIDENCE

    def at(self, length: int | None) -> RoundWork:
        """Return the counts of a round whose draft is cut at, or grown to, `length` tokens.

        Args:
            length: Draft tokens on the longest path, from 1; None gives the counts as measured.

        Tokens follow the acceptance by position. Nodes, draft forwards and draft tokens are
        spread evenly over the levels of the draft: exact for a chain, and an assumption for a
        tree, of which the ledger keeps the size and not the form.
        """
        if length is None or self.fixed:
            return self.work
        measured = expected_proposed(self.acceptance, self.acceptance.measured_length)
        levels = expected_proposed(self.acceptance, length) / measured
        tokens = 1.0 + expected_accepted(self.acceptance, length)
        return RoundWork(
            tokens=self.kept * tokens,
            target_forwards=self.work.target_forwards,
            target_tokens=1.0 + (self.work.target_tokens - 1.0) * levels,
            draft_forwards=self.work.draft_forwards * levels,
            draft_tokens=self.work.draft_tokens * levels,
        )


class Profiles(NamedTuple):
    """Methods that propose drafts, and the others with the reason why they are left out."""

    profiles: tuple[Profile, ...]
    left_out: tuple[tuple[str, str], ...]


def profiles_of(results: Sequence[ResultSet]) -> Profiles:
    """Read the profiles of every method in some result files.

    Files of one method with the same parameters, model, draft and law are one profile, tasks
    pooled.

    Raises:
        ResultsError: If no method of any file proposes drafts.
    """
    groups: dict[str, list[ResultSet]] = {}
    for result in results:
        groups.setdefault(json.dumps(_identity(result), sort_keys=True, default=str), []).append(
            result
        )
    labels = _labels([_identity(members[0]) for members in groups.values()])
    profiles: list[Profile] = []
    left_out: list[tuple[str, str]] = []
    for label, members in zip(labels, groups.values(), strict=True):
        found = _profile(label, members)
        if isinstance(found, Profile):
            profiles.append(found)
        else:
            left_out.append((label, found))
    if not profiles:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in left_out)
        raise ResultsError(
            "No file has an acceptance to predict from",
            reasons or "no result file was given",
            "Give runs of a method that drafts: specbench run method=token_sd",
        )
    return Profiles(tuple(profiles), tuple(left_out))


def _profile(label: str, members: Sequence[ResultSet]) -> Profile | str:
    metadata = members[0].metadata
    machine = _machine(metadata)
    elsewhere = [member for member in members if _machine(member.metadata) != machine]
    timed = tallies_of(member for member in members if _machine(member.metadata) == machine)
    tally = Tally()
    tally.add(timed[METHOD])
    tally.add(tallies_of(elsewhere)[METHOD])
    if not tally.rounds:
        return "it has no verification round"
    notes = []
    if elsewhere:
        notes.append(
            f"{len(elsewhere)} of {len(members)} files were measured on another machine than "
            f"{metadata.device}: acceptance is that of all, times are those of this one"
        )
    proposed, accepted, rounds = tally.lengths()
    if not proposed.any() and accepted.any():
        proposed = np.full_like(accepted, accepted.max())
        notes.append(
            "the file does not say how many tokens were proposed: every round is taken to have "
            f"proposed {accepted.max()}, the most that were accepted"
        )
    if not proposed.any():
        return "it proposes no draft tokens"
    if not tally.mean("target_forwards"):
        notes.append(
            "the file does not say what a round feeds to the models: the target is taken to "
            "verify a chain, and drafting to be free unless a draft model is named"
        )
    accepted = np.minimum(accepted, proposed)
    kept = 1.0 + float(accepted @ rounds) / tally.rounds
    tokens = tally.mean("emitted") or kept
    asked = metadata.asked
    needs = asked.needs
    work = _work(tally, tokens, float(proposed @ rounds) / tally.rounds, "draft" in needs)
    drafter: Drafter = "lookup"
    if work.draft_forwards:
        own = ("layer_skip" in needs or "features" in needs) and "head" not in needs
        drafter = "self" if own else "model"
    names = {"target": asked.target or metadata.model, "draft": asked.draft}
    models = {
        role: found
        for role, name in names.items()
        for member in reversed(members)
        if (found := recorded_model(member.metadata, role, str(name))) is not None
    }
    return Profile(
        label=label,
        method=metadata.method,
        model=metadata.model,
        target=str(names["target"]),
        draft=str(names["draft"]) if names["draft"] else None,
        tasks=tuple(sorted({member.metadata.task for member in members})),
        law=metadata.law,
        device=metadata.device,
        rounds=tally.rounds,
        drafter=drafter,
        acceptance=rates_of(proposed, accepted, rounds),
        work=work,
        kept=tokens / kept,
        fixed=_why_fixed(asked, work, tally.mean("nodes")),
        rows=_rows(asked),
        cost=_cost(timed[BASELINE], timed[METHOD]),
        notes=tuple(notes),
        dtype=metadata.dtype,
        models=models,
        totals=timed[METHOD].totals,
        baseline_totals=timed[BASELINE].totals,
    )


def _machine(metadata: FileMetadata) -> tuple[str, str]:
    return metadata.device, metadata.dtype


def _work(tally: Tally, tokens: float, proposed: float, draft_model: bool) -> RoundWork:
    forwards = tally.mean("target_forwards")
    fed = tally.mean("target_tokens")
    unknown = not forwards
    return RoundWork(
        tokens=tokens,
        target_forwards=1.0 if unknown else forwards,
        target_tokens=proposed + 1.0 if unknown or not fed else fed,
        draft_forwards=proposed if unknown and draft_model else tally.mean("draft_forwards"),
        draft_tokens=proposed if unknown and draft_model else tally.mean("draft_tokens"),
    )


def _why_fixed(asked: Asked, work: RoundWork, nodes: float) -> str:
    if not work.draft_forwards and "window" in asked.parameters:
        return "its guesses depend on the window that it ran with"
    if abs(work.target_forwards - 1.0) > _ONE_FORWARD:
        return "a round of it is not one target forward"
    if nodes and abs(work.target_tokens - 1.0 - nodes) > _SAME_NODES * work.target_tokens:
        return "it feeds the target more than the tokens that it drafts"
    return ""


def _cost(plain: Tally, tally: Tally) -> RoundCost | None:
    forwards, plain_target = plain.sums["target_forwards"], plain.sums["target_ns"]
    spent, gained = plain.totals["decode_ns"] * tally.sums["emitted"], plain.sums["emitted"]
    gained *= tally.totals["decode_ns"]
    if not forwards or not plain_target or not tally.sums["target_ns"] or not spent or not gained:
        return None
    unit = plain_target / forwards
    return RoundCost(
        draft=tally.mean("draft_ns") / unit,
        target=tally.mean("target_ns") / unit,
        host=(tally.mean("host_ns") + tally.mean("sampling_ns")) / unit,
        plain_host=sum(plain.mean(f"{part}_ns") for part in ("draft", "host", "sampling")) / unit,
        observed_speedup=spent / gained,
        plain_seconds=unit / 1e9,
    )


def _rows(asked: Asked) -> int:
    return 2 if asked.modality == "image" and asked.cfg_scale not in (None, 1) else 1


def _identity(result: ResultSet) -> dict[str, Any]:
    about = result.metadata
    return {
        "name": about.method.name,
        "parameters": dict(about.asked.parameters),
        "model": about.model,
        "target": about.asked.target,
        "draft": about.asked.draft,
        "law": about.law,
        "law_hash": about.law_hash,
    }


def _labels(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each method's id with "key=value" for what tells it from others of its name."""
    labels = []
    for own in identities:
        siblings = [other for other in identities if other["name"] == own["name"]]
        parts = [
            f"{key}={value}"
            for key, value in own["parameters"].items()
            if any(other["parameters"].get(key) != value for other in siblings)
        ]
        parts += [
            str(own[key])
            for key in ("model", "draft", "law")
            if any(other[key] != own[key] for other in siblings)
        ]
        labels.append(f"{own['name']} ({', '.join(parts)})" if parts else str(own["name"]))
    return labels
