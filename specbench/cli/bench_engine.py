"""`specbench bench-engine`: how near are the engines to what the device can do? No download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specbench.cli.console import emit, print_json, stderr, stdout
from specbench.cli.options import Json, check_choice
from specbench.errors import ConfigError, ResultsError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from specbench.runner.engine.bench import Question
    from specbench.runner.engine.figures import Figures
    from specbench.schema.shape import Shape

ENGINES = ("native", "graph", "kernels", "compile", "eager")
_ENGINES_BY_DEFAULT = ("graph", "eager", "compile")

EVERY_SHAPE = ("llama_1b", "llama_8b", "chameleon_7b")
"""What --shape all measures, one after the other."""

SMALL = "small"
"""The word for the shape of a CPU."""

_DRAFTS = {"llama_1b": "vicuna_68m", "llama_8b": "llama_1b"}
_OTHER_DRAFT = "vicuna_68m"
_DTYPES = ("auto", "bfloat16", "float16", "float32")


def bench_engine(
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            metavar="NAME",
            help="A shape of 'specbench list shapes', a config.json, 'small', or 'all' for "
            f"{', '.join(EVERY_SHAPE)}. Default: llama_1b on a GPU, small on a CPU.",
            show_default=False,
        ),
    ] = None,
    draft_shape: Annotated[
        str | None,
        typer.Option(
            "--draft-shape",
            metavar="NAME",
            help="The synthetic drafts' model, given the target's vocabulary. Default: vicuna_68m, "
            "for llama_8b llama_1b.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME,NAME",
            help=f"Of {', '.join(ENGINES)}; the first is held against the goals. Default: "
            f"{', '.join(_ENGINES_BY_DEFAULT)} on a GPU, eager on a CPU.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, bfloat16, float16 or float32.")
    ] = "auto",
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="TOKENS",
            help="Tokens in the cache at the start. Default: 512, on a CPU 128.",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            help="Tokens to decode. Default: 256, on a CPU 48.",
            show_default=False,
        ),
    ] = None,
    draft_length: Annotated[
        int, typer.Option("--draft-length", metavar="K", help="Synthetic draft tokens of a round.")
    ] = 4,
    counts: Annotated[
        str | None,
        typer.Option(
            "--verify",
            metavar="T,T",
            help="Token counts whose verification is measured, 1 among them. "
            "Default: 1,2,4,8,16,32,64.",
            show_default=False,
        ),
    ] = None,
    acceptance: Annotated[
        float,
        typer.Option(
            "--acceptance", metavar="A", help="Chance that a synthetic draft token is accepted."
        ),
    ] = 0.8,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="How often everything is measured.")
    ] = 5,
    transformers: Annotated[
        bool,
        typer.Option(
            "--transformers/--no-transformers",
            help="Whether transformers' generate runs on the same weights, which it doubles.",
        ),
    ] = True,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes", min=0, help="Stop after so long, a compiler included; 0 lifts the limit."
        ),
    ] = 30.0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of weights and prompts.")] = 0,
    json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the JSON to a file as well.")
    ] = None,
) -> None:
    """Measure the engines on random weights in a real shape: nothing is downloaded.

    Copy bandwidth; plain decoding of every engine against it and against transformers' generate;
    the cost of verifying several tokens over one; and, with drafts of a set acceptance, the
    speedup that comes out beside the one that these costs predict. On a GPU it is held against
    goals; a CPU shows that everything runs.
    """
    from specbench.report.engine import render

    place = _device(device)
    names = _engines(engine, place)
    shapes = _shapes(shape, place)
    if output is not None:
        _check_writable(output)
    questions = [
        _question(
            each,
            draft_shape,
            names,
            dtype,
            place,
            context,
            tokens,
            counts=_counts(counts),
            transformers=transformers,
            acceptance=acceptance,
            draft_length=draft_length,
            rounds=rounds,
            seed=seed,
        )
        for each in shapes
    ]
    _check(questions)
    found = _all_measured(questions, minutes or None)
    records = [figures.record() for figures in found]
    if json:
        print_json(records)
    else:
        for number, record in enumerate(records):
            if number:
                stdout().print()
            stdout().print(render(record, stdout().width))
    if output is not None:
        emit(dumps(records, indent=2, default=str) + "\n", output)


def _device(name: str) -> torch.device:
    import re

    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(f"There is no device '{name}'", "it is auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"There is no device '{name}'",
            f"torch sees {torch.cuda.device_count()} CUDA devices",
            "Leave --device out; 'specbench doctor' shows what there is.",
        )
    return torch.device("cuda:0") if name == "cuda" else device


def _engines(words: str | None, device: torch.device) -> tuple[str, ...]:
    if words is None:
        return _ENGINES_BY_DEFAULT if device.type == "cuda" else ("eager",)
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",")))
    for name in names:
        if name not in ENGINES:
            near = did_you_mean(name, ENGINES)
            raise UsageError(
                f"There is no engine '{name}'", f"there are: {', '.join(ENGINES)}", near
            )
    return names


def _counts(words: str | None) -> tuple[int, ...]:
    from specbench.runner.engine.steps import COUNTS

    if words is None:
        return COUNTS
    try:
        numbers = {int(word) for word in words.split(",")} | {1}
    except ValueError:
        numbers = {0}
    if min(numbers) < 1:
        raise UsageError(f"--verify cannot be '{words}'", "it is a list of whole numbers from 1")
    return tuple(sorted(numbers))


def _shapes(name: str | None, device: torch.device) -> list[Shape]:
    from specbench.predict import shape_named
    from specbench.runner.engine import bench

    if name is None:
        name = EVERY_SHAPE[0] if device.type == "cuda" else SMALL
    if name == SMALL:
        return [bench.SMALL]
    return [shape_named(each) for each in (EVERY_SHAPE if name == "all" else (name,))]


def _question(
    shape: Shape,
    draft: str | None,
    engines: tuple[str, ...],
    dtype: str,
    device: torch.device,
    context: int | None,
    tokens: int | None,
    **values: Any,
) -> Question:
    from specbench.predict import shape_named
    from specbench.runner.engine import bench

    check_choice("--dtype", dtype, _DTYPES)
    gpu = device.type == "cuda"
    if draft == SMALL or (draft is None and shape.name == SMALL):
        small = bench.SMALL_DRAFT
    else:
        small = shape_named(draft or _DRAFTS.get(shape.name, _OTHER_DRAFT), "draft")
    return bench.Question(
        shape=shape,
        draft=small,
        engines=engines,
        dtype=dtype,
        device=device,
        context=(512 if gpu else 128) if context is None else context,
        tokens=(256 if gpu else 48) if tokens is None else tokens,
        **values,
    )


def _check(questions: Sequence[Question]) -> None:
    """Refuse what cannot run before anything is measured."""
    from specbench.models.engines import check_engine
    from specbench.runner.engine import bench

    for question in questions:
        for name in question.engines:
            check_engine(name, question.device, question.shape.name)
        bench.check_memory(question)


def _all_measured(questions: Sequence[Question], minutes: float | None) -> list[Figures]:
    """Measure every shape, saying what is being done between measurements and every half a minute.

    Raises:
        ConfigError: If it takes longer than it may.
    """
    from specbench.runner.engine import bench
    from specbench.runner.patience import OutOfTime, Patience, ringing

    console = stderr()
    patience = Patience(minutes, lambda line: console.print(line, style="dim"))

    def say(shape: str, line: str) -> None:
        patience.at(f"{shape}: {line}")
        console.print(patience.activity, style="dim")

    try:
        with ringing(patience):
            return [bench.measure(each, partial(say, each.shape.name)) for each in questions]
    except OutOfTime:
        raise ConfigError(
            f"bench-engine was stopped after {minutes:g} minutes",
            f"it was at: {patience.activity}",
            "Allow more --minutes, or ask for less: --engine eager, a smaller --shape.",
        ) from None


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir() or path.is_dir():
        raise ResultsError(
            f"Cannot write '{path}'",
            "it is a folder" if path.is_dir() else f"there is no folder '{path.parent}'",
            "Choose another file.",
        )
