"""The typed configuration: what is accepted, and what each mistake is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from specbench.errors import ConfigError
from specbench.schema.config import RunConfig, SamplingConfig, TimingConfig, check_capabilities
from specbench.schema.method import MethodConfig
from specbench.schema.model import ModelConfig

METHOD: dict[str, Any] = {
    "name": "copy",
    "title": "Copying",
    "paper": {"title": "A paper", "authors": "Some authors", "url": "https://example.org"},
    "exactness": "exact",
    "knob": None,
    "modality": "text",
    "needs": ["draft"],
    "summary": "Copies.",
    "parameters": {"draft_length": "How much is copied."},
    "draft_length": 4,
    "decoder": {"_target_": "package.Class"},
}
MODEL: dict[str, Any] = {
    "name": "pair",
    "title": "A pair",
    "loader": {"_target_": "package.load"},
    "target": "embedded:big",
    "draft": "embedded:small",
}

TASK: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "version": 1,
    "licence": "ours",
    "source": {"kind": "file", "file": "tiny.jsonl"},
    "max_new_tokens": 8,
}


def node(**changes: Any) -> dict[str, Any]:
    plain = {
        "method": copy.deepcopy(METHOD),
        "model": copy.deepcopy(MODEL),
        "task": {**TASK, "limit": None},
        "baseline": {**copy.deepcopy(METHOD), "name": "ar", "needs": []},
        "sampling": {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 3},
        "max_new_tokens": None,
        "timing": {"repeats": 2, "warmup": 0, "threads": 2},
        "score": True,
        "results_dir": "results",
        "resume": True,
        "progress": True,
    }
    for path, value in changes.items():
        target = plain
        *parents, last = path.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    return plain


def test_a_whole_configuration_is_read() -> None:
    config = RunConfig.from_dict(node())
    assert config.method.parameters == {"draft_length": 4}
    assert config.method.documentation == {"draft_length": "How much is copied."}
    assert config.method.info().paper == "A paper"
    assert config.baseline is not None and config.baseline.name == "ar"
    assert config.model.dtype == "auto" and config.model.weights_gb is None
    assert config.sampling == SamplingConfig(0.7, 5, 0.9, 1.0, 3)
    assert config.timing == TimingConfig(2, 0, 2)
    assert config.results_dir == Path("results")


def test_plain_values_survive_json() -> None:
    config = RunConfig.from_dict(node())
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["sampling"]["top_p"] == 0.9
    assert plain["results_dir"] == "results"


def test_identity_leaves_out_what_does_not_change_the_measurement() -> None:
    first = RunConfig.from_dict(node())
    second = RunConfig.from_dict(node(results_dir="elsewhere", resume=False, progress=False))
    third = RunConfig.from_dict(node(sampling__seed=4))
    assert first.identity() == second.identity()
    assert first.identity() != third.identity()


def test_a_configuration_cannot_be_changed() -> None:
    config = RunConfig.from_dict(node())
    with pytest.raises(AttributeError):
        config.score = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sampling__temperature", -0.1),
        ("sampling__temperature", "hot"),
        ("sampling__temperature", True),
        ("sampling__temperature", float("nan")),
        ("sampling__temperature", float("inf")),
        ("sampling__top_k", -1),
        ("sampling__cfg_scale", -1),
        ("sampling__cfg_schedule", "steep"),
        ("sampling__text_top_k", 6),
        ("sampling__unconditional", "none"),
        ("sampling__top_k", 2.5),
        ("sampling__top_p", 0),
        ("sampling__top_p", 1.01),
        ("sampling__repetition_penalty", 0),
        ("sampling__seed", -1),
        ("max_new_tokens", 0),
        ("timing__repeats", 0),
        ("timing__warmup", -1),
        ("timing__threads", 0),
        ("score", "yes"),
        ("results_dir", ""),
        ("results_dir", None),
        ("model__dtype", "float33"),
        ("model__device", "gpu"),
        ("model__device", "cpu:1"),
        ("model__engine", "fast"),
        ("model__context", 0),
        ("model__chat", "maybe"),
        ("model__target", 3),
        ("method__exactness", "exat"),
        ("method__needs", ["drafts"]),
        ("method__decoder", "package.Class"),
        ("method__knob", "epsilon"),
    ],
)
def test_a_wrong_value_is_named_by_its_full_path(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(node(**{path: value}))
    assert f"'{path.replace('__', '.')}'" in caught.value.what
    assert caught.value.why.startswith("it must be ")
    assert caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("sampling__temperature", 1e-320, "0, or a number of at least 1e-06 and at most 1e+06"),
        ("sampling__temperature", 1e308, "at most 1e+06"),
        ("sampling__repetition_penalty", 1e-320, "of at least 0.01 and at most 100"),
        ("sampling__repetition_penalty", 1e300, "of at least 0.01 and at most 100"),
        ("sampling__top_p", 1e-320, "of at least 1e-06 and at most 1"),
        ("sampling__cfg_scale", 1e300, "of at least 0 and at most 1000"),
        ("sampling__image_scale", 1e300, "of at least 0 and at most 1000"),
        ("sampling__seed", 2**63, "of at least 0 and at most 9223372036854775807"),
        ("timing__threads", 100_000, "of at least 1 and at most 1024"),
        ("timing__repeats", 10**9, "of at least 1 and at most 100000"),
        ("timing__processes", 10**9, "of at least 1 and at most 100000"),
        ("timing__warmup", 10**9, "of at least 0 and at most 100000"),
        ("max_new_tokens", 10**12, "of at least 1 and at most 10000000"),
    ],
)
def test_what_no_number_format_can_hold_is_refused_with_the_range(
    path: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(node(**{path: value}))
    assert allowed in caught.value.why


@pytest.mark.parametrize("value", [0.0, 1, 0.5, 2, 1e-6])
def test_temperatures_from_zero_up_are_allowed(value: float) -> None:
    assert RunConfig.from_dict(node(sampling__temperature=value)).sampling.temperature == value


@pytest.mark.parametrize(
    ("change", "unknown", "meant"),
    [
        ({"sampling__temprature": 1}, "sampling.temprature", "sampling.temperature"),
        ({"metod": 1}, "metod", "method"),
        ({"model__dtyp": "auto"}, "model.dtyp", "model.dtype"),
        ({"method__draft_lenght": 4}, "method.draft_lenght", "method.draft_length"),
        ({"timing__repeat": 4}, "timing.repeat", "timing.repeats"),
    ],
)
def test_an_unknown_key_gets_its_nearest_neighbour(
    change: dict[str, Any], unknown: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(node(**change))
    assert caught.value.what == f"Unknown key '{unknown}'. Did you mean '{meant}'?"


def test_a_mistyped_word_gets_its_nearest_neighbour() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(node(model__dtype="bfloat"))
    assert caught.value.fix == "Did you mean model.dtype=bfloat16?"


def test_a_model_without_a_target_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict({**MODEL, "target": "???"})
    assert "model.target" in caught.value.what
    assert "model.target=ORG/NAME" in caught.value.fix


@pytest.mark.parametrize("missing", ["name", "title", "decoder"])
def test_a_method_must_have_its_keys(missing: str) -> None:
    values = {key: value for key, value in METHOD.items() if key != missing}
    with pytest.raises(ConfigError, match=missing):
        MethodConfig.from_dict(values)


def test_a_documented_parameter_must_have_a_value() -> None:
    values = {key: value for key, value in METHOD.items() if key != "draft_length"}
    with pytest.raises(ConfigError, match="draft_length"):
        MethodConfig.from_dict(values)


def test_a_lossy_method_names_its_knob() -> None:
    values = {**METHOD, "exactness": "lossy"}
    with pytest.raises(ConfigError, match="knob"):
        MethodConfig.from_dict(values)
    assert MethodConfig.from_dict({**values, "knob": "draft_length"}).knob == "draft_length"


def test_a_task_is_required() -> None:
    with pytest.raises(ConfigError, match="task"):
        RunConfig.from_dict(node(task={}))


@pytest.mark.parametrize("role", ["method", "baseline"])
def test_a_missing_draft_is_refused_by_name(role: str) -> None:
    config = RunConfig.from_dict(node(**{"model__draft": None, f"{role}__needs": ["draft"]}))
    with pytest.raises(ConfigError) as caught:
        check_capabilities(config)
    assert "draft" in caught.value.what
    assert "'pair'" in caught.value.why
    assert "model.draft=" in caught.value.fix


def test_a_modality_must_fit() -> None:
    with pytest.raises(ConfigError, match="image"):
        check_capabilities(RunConfig.from_dict(node(method__modality="image")))
    check_capabilities(RunConfig.from_dict(node(method__modality="any")))
    check_capabilities(RunConfig.from_dict(node(baseline=None)))


def test_an_image_model_brings_its_own_law_and_the_run_may_change_it() -> None:
    own = {"temperature": 1.0, "top_k": 128, "cfg_scale": 2.0}

    def law(**sampling: Any) -> SamplingConfig:
        changed = node(model__sampling=own, sampling=sampling)
        return RunConfig.from_dict(changed).sampling

    assert law(temperature=None, top_k=None, seed=3) == SamplingConfig(
        temperature=1.0, top_k=128, seed=3, cfg_scale=2.0
    )
    assert law(temperature=0, top_k=0, cfg_scale=1) == SamplingConfig(
        temperature=0, top_k=None, cfg_scale=1
    )


def test_guidance_is_refused_on_a_model_of_text() -> None:
    with pytest.raises(ConfigError) as caught:
        check_capabilities(RunConfig.from_dict(node(sampling__cfg_scale=2.0)))
    assert "sampling.cfg_scale" in str(caught.value.what)


def test_an_unconditional_row_is_asked_only_of_models_that_state_it() -> None:
    image = {"modality": "image", "loader": {"_target_": "a.b", "unconditional": [3]}}

    def check(kind: str, **model: Any) -> None:
        changed = node(sampling__unconditional=kind)
        changed["model"] = {**changed["model"], **model}
        changed["task"] = {**TASK, "modality": "image"}
        changed["method"] = {**changed["method"], "modality": "any", "needs": []}
        changed["baseline"] = None
        check_capabilities(RunConfig.from_dict(changed))

    check("last_token", **image)
    check("own", modality="image", loader={"_target_": "a.b"})
    padded = {**image["loader"], "padding": 1}
    check("padded", modality="image", loader=padded)
    for kind, loader in (("padded", image["loader"]), ("last_token", {"_target_": "a.b"})):
        with pytest.raises(ConfigError, match=f"sampling.unconditional={kind}"):
            check(kind, modality="image", loader=loader)
    with pytest.raises(ConfigError, match=r"sampling\.unconditional"):
        check_capabilities(RunConfig.from_dict(node(sampling__unconditional="last_token")))


def test_a_jobs_identity_holds_its_task_as_it_is_written() -> None:
    written = {**TASK, "category": "one", "stop": None, "metrics": [], "limit": 3}
    config = RunConfig.from_dict(node(task=written))
    assert config.task.category == ("one",) and config.task.stop == ()
    assert config.to_dict()["task"] == written
    assert config.identity()["task"] == {k: v for k, v in written.items() if k != "metrics"}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("task__limit", 0, "'task.limit' cannot be 0"),
        ("task__limt", 0, "Unknown key 'task.limt'. Did you mean 'task.limit'?"),
        ("task__source", 3, "'task.source' must be a group of keys, but it is 3"),
        ("task__source__kind", "fil", "'task.source.kind' cannot be 'fil'"),
        ("task__source__url", "x", "Unknown key 'task.source.url'"),
        ("task__prompt", {"styl": "chat"}, "Unknown key 'task.prompt.styl'"),
        ("task__prompt", {"date": "today"}, "'task.prompt.date' cannot be 'today'"),
    ],
)
def test_a_task_is_checked_like_the_rest(path: str, value: Any, words: str) -> None:
    changed = node(task=copy.deepcopy(TASK))
    *parents, last = path.split("__")
    target = changed
    for parent in parents:
        target = target[parent]
    target[last] = value
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(changed)
    assert caught.value.what.startswith(words)
