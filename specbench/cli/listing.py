"""`specbench list`: what there is to run, read from the YAML files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from specbench.cli.console import print_json, print_table, stderr
from specbench.cli.options import ConfigDir, Json
from specbench.errors import UsageError, did_you_mean
from specbench.schema import catalog
from specbench.schema.families import FAMILIES

KINDS = ("methods", "models", "tasks", "metrics", "hardware", "shapes", "recipes", "results")


def list_entries(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="|".join(KINDS), help="What to list.", autocompletion=lambda: list(KINDS)
        ),
    ],
    json: Json = False,
    config_dir: ConfigDir = None,
    results_dir: Annotated[
        Path, typer.Option("--results-dir", help="The folder that 'list results' reads.")
    ] = Path("results"),
) -> None:
    """List methods, models, tasks, recipes and other entries, or the results of past runs."""
    if kind not in KINDS:
        near = did_you_mean(kind, KINDS)
        raise UsageError(f"Cannot list '{kind}'", f"there are: {', '.join(KINDS)}", near)
    if kind == "results":
        headers, rows = _results(results_dir)
    else:
        group = kind.removesuffix("s")
        folders = [config_dir] if config_dir else []
        entries = _entries(group, folders)
        if kind == "methods":
            entries.sort(key=_family)
        columns = _COLUMNS[kind]
        headers = [header for header, _ in columns]
        rows = [[read(entry) for _, read in columns] for entry in entries]
    if json:
        keys = [header.lower().replace(" ", "_") for header in headers]
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    elif not rows:
        stderr().print(f"There are no {kind}.")
    else:
        print_table(headers, [[_cell(value) for value in row] for row in rows])


def _entries(group: str, folders: list[Path]) -> list[dict[str, Any]]:
    if group == "metric":
        from specbench.compare import registry

        return [registry.about(name, folders) for name in registry.names(folders)]
    return [catalog.load(group, name, folders) for name in catalog.names(group, folders)]


def _results(folder: Path) -> tuple[list[str], list[list[Any]]]:
    from datetime import datetime

    from specbench.store import list_results

    headers = ["File", "Method", "Task", "Model", "Baseline", "Temperature", "Rows", "Written"]
    rows: list[list[Any]] = []
    for summary in list_results(folder):
        about = summary.metadata
        written = datetime.fromtimestamp(summary.modified_unix).isoformat(" ", "minutes")
        if about is None:
            stderr().print(f"{summary.path}: {summary.problem}")
            continue
        baseline = about.baseline.name if about.baseline else None
        rows.append(
            [str(summary.path), about.method.name, about.task, about.model, baseline]
            + [about.temperature, summary.rows, written]
        )
    return headers, rows


def _family(entry: Mapping[str, Any]) -> int:
    """Return the place of a method's family; methods of one family stay in order of name."""
    family = entry.get("family", FAMILIES[-1])
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)


def _key(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda entry: entry.get(name)


def _source(entry: Mapping[str, Any]) -> str:
    source = entry.get("source") or {}
    if source.get("kind") == "mix":
        return f"mix of {len(source.get('tasks') or ())} tasks"
    if source.get("kind") == "classes":
        return f"{source.get('classes')} class ids"
    if source.get("kind") == "worlds":
        return f"{source.get('count')} drawn prompts"
    return str(source.get("dataset") or "embedded")


def _modality(entry: Mapping[str, Any]) -> str:
    return str(entry.get("modality") or "text")


def _tera(rate: Any) -> str | None:
    return None if rate is None else f"{rate / 1e12:g}"


def _giga(size: Any) -> str | None:
    return None if size is None else f"{size / 1e9:g}"


def _aliases(entry: Mapping[str, Any]) -> list[str]:
    return list(entry.get("aliases") or [])


_Columns = list[tuple[str, Callable[[Mapping[str, Any]], Any]]]
_COLUMNS: dict[str, _Columns] = {
    "methods": [
        ("Name", _key("name")),
        ("Title", _key("title")),
        ("Family", _key("family")),
        ("Exactness", _key("exactness")),
        ("Needs", _key("needs")),
        ("Modality", _key("modality")),
        ("Paper", lambda entry: (entry.get("paper") or {}).get("url")),
    ],
    "models": [
        ("Name", _key("name")),
        ("Title", _key("title")),
        ("Modality", _modality),
        ("Weights GB", _key("weights_gb")),
        ("Target", _key("target")),
        ("Draft", _key("draft")),
        ("Heads", lambda entry: list(entry.get("heads") or ())),
    ],
    "tasks": [
        ("Name", _key("name")),
        ("Title", _key("title")),
        ("Modality", _modality),
        ("Version", _key("version")),
        ("Licence", _key("licence")),
        ("Source", _source),
    ],
    "recipes": [
        ("Name", _key("name")),
        ("Title", _key("title")),
        ("Trains", _key("trains")),
        ("Steps", _key("steps")),
        ("Needs", _key("needs")),
        ("Paper", _key("paper")),
    ],
    "metrics": [
        ("Name", _key("name")),
        ("Title", _key("title")),
        ("Measures", lambda entry: "pictures" if entry.get("metric") else "every run"),
        ("Unit", _key("unit")),
        ("Better", _key("better")),
    ],
    "hardware": [
        ("Name", _key("name")),
        ("Also", _aliases),
        ("Title", _key("title")),
        ("TB/s", lambda entry: _tera(entry.get("bandwidth"))),
        ("BF16 TFLOP/s", lambda entry: _tera((entry.get("flops") or {}).get("bfloat16"))),
        ("GB", lambda entry: _giga(entry.get("memory_bytes"))),
    ],
    "shapes": [
        ("Name", _key("name")),
        ("Also", _aliases),
        ("Title", _key("title")),
        ("Layers", _key("layers")),
        ("Hidden", _key("hidden_size")),
        ("Heads", lambda entry: f"{entry.get('heads')}/{entry.get('key_value_heads')}"),
        ("Vocabulary", _key("vocabulary")),
    ],
}


def _cell(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "you name it" if value == "???" else str(value)
