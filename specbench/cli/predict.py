"""`specbench predict`: the expected speedup on other hardware, from measured acceptance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from specbench.cli.console import emit, stdout
from specbench.cli.options import (
    ConfigDir,
    Files,
    Json,
    Markdown,
    Output,
    check_choice,
    check_formats,
)
from specbench.errors import UsageError

MEASURED = "measured"
"""The word for the machine of the files."""

_LONGEST = 256
_DTYPES = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp8": "float8",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float8": "float8",
    "int8": "int8",
}


def predict(
    files: Files,
    hardware: Annotated[
        str,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="A device of 'specbench list hardware'. Without it the files' own machine, which "
            "checks the model against the measurements. With --check: what that machine is.",
        ),
    ] = MEASURED,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="SHAPE",
            help="8b, a shape of 'specbench list shapes', a model entry, or a config.json. "
            "Default: the measured target.",
        ),
    ] = None,
    draft: Annotated[
        str | None, typer.Option("--draft", metavar="SHAPE", help="The same for the draft model.")
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="N,N,...", help="Batch sizes; 1..8 is a range.")
    ] = "1,8,32",
    length: Annotated[
        str, typer.Option("--length", metavar="N..M", help="Draft lengths to try; 2,4,8 is a list.")
    ] = "1..16",
    context: Annotated[
        int, typer.Option("--context", metavar="TOKENS", help="Tokens in the cache of a request.")
    ] = 2048,
    dtype: Annotated[
        str, typer.Option("--dtype", help="bf16, fp16, fp32, fp8 or int8, of both models.")
    ] = "bf16",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change an assumption of the hardware entry, such as "
            "bandwidth_efficiency=0.9; repeatable.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Predict the measured runs and print the errors.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Tables and a chart for each method.")
    ] = False,
    json: Json = False,
    markdown: Markdown = False,
    output: Output = None,
    config_dir: ConfigDir = None,
) -> None:
    """Predict the speedup on a device, by batch size and draft length.

    Acceptance comes from the files, the cost of a forward from a roofline of the device. Without
    --hardware every run is predicted from the costs of the others, and the errors are printed.
    """
    check_formats(json, markdown, False, output)
    measured = check or hardware == MEASURED
    if measured:
        _refuse("--check" if check else "", target, draft, settings)
    lengths, batches = _numbers("--length", length), _numbers("--batch", batch)
    number_format, changes = _dtype(dtype), _settings(settings or ())
    folders = [config_dir] if config_dir else []

    from specbench import predict as predicting
    from specbench.report import predict as report
    from specbench.report import predict_table
    from specbench.store import read_many

    answer: report.Report | report.CheckReport
    if measured:
        known = None if hardware == MEASURED else predicting.hardware_named(hardware, folders)
        found = predicting.profiles_of(read_many(files))
        checked = predicting.check_predictions(found.profiles, lengths)
        shares = predicting.shares_of(found.profiles, known, folders)
        answer = report.CheckReport(checked, found.left_out, shares)
    else:
        device = predicting.hardware_named(hardware, folders).assuming(changes)
        found = predicting.profiles_of(read_many(files))
        shapes = predicting.pair_of(found.profiles, target, draft, folders)
        question = predicting.Question(device, *shapes, number_format, context, batches, lengths)
        predictions = tuple(predicting.predict(each, question) for each in found.profiles)
        warnings = tuple(predicting.warnings_of(predictions, question, folders))
        answer = report.Report(question, predictions, found.left_out, warnings)
    if json:
        emit(report.json(answer), output)
    elif markdown:
        emit(report.markdown(answer), output)
    else:
        stdout().print(predict_table.render(answer, stdout().width, details))


def _refuse(
    check: str, target: str | None, draft: str | None, settings: Sequence[str] | None
) -> None:
    """Refuse options that a prediction of the measured machine would ignore."""
    options = [
        option
        for option, given in (("--target", target), ("--draft", draft), ("--set", settings))
        if given
    ]
    if options:
        raise UsageError(
            f"{' and '.join(options)} would be ignored",
            "the measured runs are predicted on their own machine and models",
            f"Leave out {check}." if check else "Add --hardware NAME: see specbench list hardware.",
        )


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers of "1,2,8", "1..16" or a mixture, in order and once each."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,6})\s*(?:\.\.\s*(\d{1,6})\s*)?", part)
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else 0
        limit = _LONGEST if option == "--length" else 10**6
        if not 1 <= first <= last <= limit or last - first >= _LONGEST:
            raise UsageError(
                f"{option} cannot be '{text}'",
                f"it is whole numbers from 1 to {limit:,}, or a range of at most {_LONGEST}",
                f"Write {option} 1,8,32 or {option} 1..16.",
            )
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def _dtype(name: str) -> str:
    check_choice("--dtype", name, _DTYPES)
    return _DTYPES[name]


def _settings(words: Sequence[str]) -> dict[str, float]:
    values = {}
    for word in words:
        key, _, value = word.partition("=")
        try:
            values[key.strip()] = float(value)
        except ValueError as error:
            raise UsageError(
                f"--set cannot be '{word}'", "it is KEY=NUMBER", "Write --set round_overhead_us=50."
            ) from error
    return values
