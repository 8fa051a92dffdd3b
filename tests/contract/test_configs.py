"""Every YAML of `conf/` composes, validates, and names what exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from specbench.compare.comparison import ComparisonRow
from specbench.compare.derive import ArmSummary
from specbench.hosting import HostRequest, compose_jobs, load_method
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.build import instantiate, locate
from specbench.schema.config import MethodConfig
from specbench.tasks.config import TaskConfig

METHODS = catalog.names("method")
MODELS = catalog.names("model")
TASKS = catalog.names("task")
METRICS = catalog.names("metric")


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def entries() -> list[tuple[str, str]]:
    return [(path.parent.name, path.stem) for path in sorted(conf_dir().glob("*/*.yaml"))]


def test_the_default_run_needs_nothing_from_outside() -> None:
    ((_, config),) = compose_jobs(HostRequest())
    assert config.model.target.startswith("embedded:")
    assert config.model.draft is not None and config.model.draft.startswith("embedded:")
    assert config.task["name"] == "tiny"
    assert config.baseline is not None and config.baseline.name == "ar"


@pytest.mark.parametrize(("group", "name"), entries())
def test_an_entry_is_named_as_its_file(group: str, name: str) -> None:
    entry = catalog.load(group, name)
    assert entry["name"] == name
    assert entry["title"]


@pytest.mark.parametrize(("group", "name"), entries())
def test_every_target_can_be_imported(group: str, name: str) -> None:
    for target in targets(catalog.load(group, name)):
        assert callable(locate(target))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_composes_and_its_parts_accept_their_arguments(name: str) -> None:
    ((_, config),) = compose_jobs(HostRequest((f"method={name}",)))
    assert config.method == MethodConfig.from_dict(load_method(name))
    assert config.method.summary
    decoder = instantiate(config.method.decoder)
    assert callable(decoder.generate)
    assert decoder.needs == frozenset(config.method.needs)


@pytest.mark.parametrize("name", METHODS)
def test_a_parameter_reaches_the_decoder(name: str) -> None:
    for parameter in catalog.load("method", name).get("parameters", {}):
        text = (conf_dir() / "method" / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"${{method.{parameter}}}" in text


@pytest.mark.parametrize("name", MODELS)
def test_a_model_composes(name: str) -> None:
    words = ["method=ar", f"model={name}"]
    if catalog.load("model", name)["target"] == "???":
        words.append("model.target=ORG/NAME")
    ((_, config),) = compose_jobs(HostRequest(tuple(words)))
    assert config.model.name == name
    assert config.model.licence and config.model.summary


@pytest.mark.parametrize("name", MODELS)
def test_a_hub_model_is_pinned_and_says_what_it_needs(name: str) -> None:
    entry = catalog.load("model", name)
    for role in ("target", "draft"):
        place = entry[role]
        if place and place != "???" and not place.startswith("embedded:"):
            revision = entry[f"{role}_revision"]
            assert len(revision) == 40 and set(revision) <= set("0123456789abcdef")
            assert entry["weights_gb"] > 0


@pytest.mark.parametrize("name", TASKS)
def test_a_task_composes(name: str) -> None:
    ((_, config),) = compose_jobs(HostRequest((f"task={name}", "task.limit=3")))
    task = TaskConfig.from_dict(dict(config.task))
    assert task.name == name
    assert task.licence


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_defined(name: str) -> None:
    entry = catalog.load("metric", name)
    assert entry["better"] in ("higher", "lower", "neither")
    assert entry["definition"] and entry["unit"]


def test_the_metrics_are_the_columns_of_a_comparison() -> None:
    columns = {item.name for item in (*fields(ComparisonRow), *fields(ArmSummary))}
    about = {"section", "label", "method", "is_baseline", "samples", "repeats", "processes"}
    about |= {"failed", "score_name", "draws", "quantities"}
    assert set(METRICS) == columns - about


def test_the_embedded_task_files_are_there(repo_root: Path) -> None:
    assert sorted(path.stem for path in (repo_root / "tasks").glob("tiny_*.jsonl")) == [
        "tiny_chat",
        "tiny_code",
        "tiny_math",
        "tiny_qa",
        "tiny_rewrite",
        "tiny_translate",
    ]
