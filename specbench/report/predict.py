"""What a prediction and its check say, in words, as Markdown and as JSON."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from specbench.predict.check import CheckedMethod, CheckedMethods
from specbench.predict.limit import Share
from specbench.predict.speedup import LARGEST_BATCH, Cell, Prediction, Question
from specbench.report.json import plain
from specbench.report.markdown import escaped, listed, table

FORMAT = 1
"""Version of the keys of the JSON."""

NOTHING = "-"

LEGEND = (
    "speedup: over plain decoding at the same batch size. @n: with drafts of n tokens, the best "
    "length tried; without it the draft is as it was measured. ~: a length that was never "
    "measured, or too rarely, so that acceptance there is extrapolated. tokens: of a round and "
    "request, at the first batch. loses: the smallest batch at which no length pays; never: none "
    "up to the last batch that fits or stands here."
)

DETAIL_LEGEND = (
    "speedup: over plain decoding at the same batch size, as run with the measured drafts and at "
    "the best length. ~: extrapolated acceptance. tokens: of a round and request. bound: what "
    "takes most of the round: reading weights, reading the cache, computing, or the overhead of "
    "starting work."
)

CHECK_LEGEND = (
    "measured: decode tokens per second over plain decoding's. predicted: from the method's own "
    "acceptance and counts, and from costs fitted to the other methods beside it; none of its own "
    "times. error: predicted over measured, less 1. best length: the draft length that this "
    "machine's costs favour, and the speedup there; ~: acceptance there is extrapolated."
)


SHARE_LEGEND = (
    "share: forwards times the bytes of the weights that each must read, over the bandwidth of the "
    "data sheet, over the measured time; 100% would be to do nothing but read weights. Weights "
    "that stay in a processor's cache can give more."
)


class Report(NamedTuple):
    """Everything that a prediction says.

    Attributes:
        question: What was asked.
        predictions: One for each method.
        left_out: Methods that cannot be predicted, with the reason.
        warnings: What to know before believing it.
    """

    question: Question
    predictions: tuple[Prediction, ...]
    left_out: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    def ordered(self) -> list[Prediction]:
        """Return the predictions, the fastest at the first batch size first."""
        return sorted(self.predictions, key=lambda p: -p.batches[0].best.speedup)


class CheckReport(NamedTuple):
    """What measured runs say of the model of costs, and of the machine that ran them.

    Attributes:
        check: Predictions of the runs themselves.
        left_out: Methods that cannot be predicted, with the reason.
        shares: Each method's share of the memory-bandwidth limit.
    """

    check: CheckedMethods
    left_out: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...] = ()

    @property
    def settings(self) -> list[str]:
        """Models, laws and devices with a prediction, in first-seen order."""
        done = [item.setting for item in self.check.methods if item.error is not None]
        return list(dict.fromkeys(done))

    def predicted(self, setting: str) -> list[CheckedMethod]:
        """Return the predicted methods of a setting, the largest error first."""
        done = [m for m in self.check.methods if m.setting == setting and m.error is not None]
        return sorted(done, key=lambda m: -abs(m.error or 0.0))

    @property
    def unpredicted(self) -> list[tuple[str, str]]:
        """Methods without a prediction and the reason."""
        failed = [(m.label, m.reason) for m in self.check.methods if m.error is None]
        return [*failed, *self.left_out]


def heading(question: Question) -> str:
    """Return one line on what is predicted."""
    pair = question.target.title
    if question.draft is not None:
        pair += f" with {question.draft.title}"
    return (
        f"Predicted on {question.hardware.title}: {pair}, {question.dtype}, "
        f"context {question.context:,}"
    )


def assumptions(question: Question) -> str:
    """Return one sentence on what no data sheet and no result file states."""
    assumed = question.hardware.assumed
    return (
        f"Assumed: {assumed.bandwidth_efficiency:.0%} of the memory bandwidth and "
        f"{assumed.compute_efficiency:.0%} of the peak rate are reached, "
        f"{assumed.forward_overhead_us:g} us to start a forward and "
        f"{assumed.layer_overhead_us:g} us for each layer, {assumed.round_overhead_us:g} us of "
        "host work in a round. Change them with --set KEY=VALUE; docs/predict.md says what is not "
        "modelled."
    )


def about(prediction: Prediction) -> str:
    """Return what a method's prediction was measured from."""
    profile = prediction.profile
    return (
        f"{profile.rounds:,} rounds of {', '.join(profile.tasks)} on {profile.model} "
        f"({profile.law}), {profile.acceptance_rate:.0%} of tested draft tokens accepted"
    )


def paying(prediction: Prediction) -> str:
    """Return one sentence on the batch sizes at which a method is faster than plain decoding."""
    limit, lost = prediction.largest_batch, prediction.stops_paying
    if lost == 1:
        return "At batch 1 no draft length pays."
    if lost is not None:
        return f"It stops paying at batch {lost:,}" + (f"; {limit:,} would fit." if limit else ".")
    if limit:
        return f"It pays at every batch size up to the last that fits, {limit:,}."
    return f"It would pay at every batch size up to {LARGEST_BATCH:,}, but not one request fits."


def loses(prediction: Prediction) -> str:
    """Return the smallest batch at which nothing pays, or "never"."""
    return "never" if prediction.stops_paying is None else f"{prediction.stops_paying:,}"


def speedup(cell: Cell) -> str:
    """Return a speedup with the draft length that gives it; ~ marks an extrapolation."""
    length = "" if cell.length is None else f" @{cell.length}"
    return f"{cell.speedup:.2f}x{length}{'~' if cell.extrapolated else ''}"


def check_cells(item: CheckedMethod) -> list[str]:
    """Return measured and predicted speedup, the error, and the best length of a method."""
    best = NOTHING
    if item.best_length is not None and item.best_speedup is not None:
        mark = "~" if item.best_extrapolated else ""
        best = f"{item.best_speedup:.2f}x @{item.best_length}{mark}"
    assert item.observed is not None and item.predicted is not None and item.error is not None
    return [f"{item.observed:.2f}x", f"{item.predicted:.2f}x", f"{item.error:+.1%}", best]


def limits(shares: Sequence[Share]) -> dict[str, list[Share]]:
    """Return the known shares by a heading that names device and setting, the largest first."""
    found: dict[str, list[Share]] = {}
    for share in sorted(shares, key=lambda share: -(share.method or 0.0)):
        if share.method is not None:
            title = f"Share of the memory-bandwidth limit of {share.hardware}: {share.setting}"
            found.setdefault(title, []).append(share)
    return found


def share_cells(share: Share) -> list[str]:
    """Return the shares of a method and of plain decoding beside it."""
    values = (share.method, share.baseline)
    return [NOTHING if value is None else f"{value:.1%}" for value in values]


def no_shares(shares: Sequence[Share]) -> list[str]:
    """Return a sentence for each reason why there are no shares of the bandwidth limit."""
    unknown = dict.fromkeys(share.reason for share in shares if share.reason)
    return [
        f"No share of the memory-bandwidth limit: {reason}."
        + (" Say what it is with --check --hardware NAME." if "hardware entry" in reason else "")
        for reason in unknown
    ]


def summary(check: CheckedMethods) -> str:
    """Return one sentence on the errors of a check."""
    done = [item for item in check.methods if item.error is not None]
    if check.median_error is None or check.percentile_90_error is None:
        return "No run could be predicted."
    assert check.largest_error is not None
    return (
        f"{len(done)} runs predicted: the median error is {check.median_error:.1%}, nine in ten "
        f"are within {check.percentile_90_error:.1%}, the largest is {check.largest_error:.1%}."
    )


def reasons(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sentence for each reason why methods are left out."""
    by_reason: dict[str, list[str]] = {}
    for label, reason in left_out:
        by_reason.setdefault(reason, []).append(label)
    return [f"Left out ({reason}): {', '.join(names)}." for reason, names in by_reason.items()]


def markdown(report: Report | CheckReport) -> str:
    """Return a prediction, or a check, as Markdown: a row for each method, words below."""
    if isinstance(report, CheckReport):
        return _markdown_check(report)
    batches = report.question.batches
    header = ["Method", "Exactness", "Tokens", *(f"Batch {n}" for n in batches), "Loses"]
    rows = [
        [
            prediction.profile.label,
            prediction.profile.method.exactness,
            f"{prediction.batches[0].best.tokens:.2f}",
            *(speedup(batch.best) for batch in prediction.batches),
            loses(prediction),
        ]
        for prediction in report.ordered()
    ]
    blocks = [heading(report.question), table(header, rows, _left(header))]
    blocks.append(f"<sub>{escaped(LEGEND)} {escaped(assumptions(report.question))}</sub>")
    notes = [*reasons(report.left_out), *report.warnings]
    if notes:
        blocks.append(listed(notes))
    return "\n\n".join(blocks) + "\n"


def _markdown_check(report: CheckReport) -> str:
    header = ["Method", "Exactness", "Measured", "Predicted", "Error", "Best length"]
    blocks = []
    for setting in report.settings:
        rows = [
            [item.label, item.method.exactness, *check_cells(item)]
            for item in report.predicted(setting)
        ]
        blocks.extend([f"**{escaped(setting)}**", table(header, rows, _left(header))])
    blocks.extend([summary(report.check), f"<sub>{escaped(CHECK_LEGEND)}</sub>"])
    limited = limits(report.shares)
    for title, shares in limited.items():
        lines = [[share.label, *share_cells(share)] for share in shares]
        shown_shares = table(["Method", "Share", "Plain decoding"], lines, (True, False, False))
        blocks.extend([f"**{escaped(title)}**", shown_shares])
    if limited:
        blocks.append(f"<sub>{escaped(SHARE_LEGEND)}</sub>")
    notes = [*reasons(report.unpredicted), *no_shares(report.shares)]
    if notes:
        blocks.append(listed(notes))
    return "\n\n".join(blocks) + "\n"


def json(report: Report | CheckReport) -> str:
    """Return all of it as JSON: shapes, hardware with sources and cells, or checks and costs."""
    values = report._asdict()
    if isinstance(report, Report):
        asked = values.pop("question")
        values = {**{item.name: getattr(asked, item.name) for item in fields(asked)}, **values}
    values = {"format": FORMAT, **values}
    return json_module.dumps(plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _left(header: Sequence[str]) -> list[bool]:
    """Return that the first two columns, names and classes, stand flush left."""
    return [place < 2 for place in range(len(header))]
