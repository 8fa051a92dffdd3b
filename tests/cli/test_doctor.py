"""The doctor's look at devices and at what each model entry needs; nothing is fetched."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from specbench.cli import doctor, doctor_device, doctor_models
from specbench.schema import catalog

Call = Callable[..., Result]
HUB = {"target": "org/one", "target_revision": "a" * 40, "draft": None, "weights_gb": 3.0}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, repository: str, commit: str, file: str = "model.safetensors") -> None:
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / file).write_bytes(b"weights")


def need(entry: dict[str, Any], free: float = 10e9) -> doctor_models.Need:
    return doctor_models.need_of("one", entry, int(free))


def test_weights_in_the_cache_are_seen(cache: Path) -> None:
    assert need(HUB).where == "to fetch"
    put(cache, "org/one", "b" * 40)
    assert need(HUB).where == "to fetch"  # another revision
    put(cache, "org/one", "a" * 40)
    assert need(HUB).where == "cached"
    assert need({**HUB, "draft": "org/two", "draft_revision": None}).where == "partly cached"


def test_a_branch_is_followed_to_its_commit(cache: Path) -> None:
    entry = {**HUB, "target_revision": None}
    put(cache, "org/one", "c" * 40)
    assert need(entry).where == "to fetch"
    refs = cache / "models--org--one" / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    assert need(entry).where == "cached"


def test_a_configuration_alone_is_no_weights(cache: Path) -> None:
    put(cache, "org/one", "a" * 40, "config.json")
    assert need(HUB).where == "to fetch"
    link = cache / "models--org--one" / "snapshots" / ("a" * 40) / "model.safetensors"
    link.symlink_to(cache / "gone")
    assert need(HUB).where == "to fetch"


def test_a_named_file_is_looked_for(cache: Path) -> None:
    put(cache, "org/one", "a" * 40, "other.pt")
    assert need({**HUB, "loader": {"weights": "mine.pt"}}).where == "to fetch"
    assert need({**HUB, "loader": {"weights": "other.pt"}}).where == "cached"


def test_what_does_not_fit_is_told(cache: Path) -> None:
    assert need(HUB, free=3.1e9).fits is True
    assert need(HUB, free=2.9e9).fits is False
    assert need({**HUB, "weights_gb": None}).fits is None
    assert need({"target": "???"}) == doctor_models.Need("one", None, "you name it", None)


def test_every_entry_of_the_project_has_a_line(cache: Path) -> None:
    found = {each.name: each for each in doctor_models.needs_of_models(10**9)}
    assert set(found) == set(catalog.names("model"))
    assert found["tiny_text"].where == "embedded" and found["tiny_text"].fits
    assert found["llama31_8b"].where == "to fetch" and found["llama31_8b"].fits is False


def test_a_trial_that_fails_is_a_note() -> None:
    def broken() -> str:
        raise RuntimeError("the driver is too old\nand a trace")

    check = doctor_device.tried("cuda:0 graph", broken, "advice")
    assert check == doctor.Finding(
        "cuda:0 graph", "note", "RuntimeError: the driver is too old", "advice"
    )
    assert doctor_device.tried("x", lambda: "fine", "advice").status == "ok"


def test_the_processor_is_measured_and_its_compiler_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_device, "_SECONDS", 0.0)
    monkeypatch.setenv("CXX", "no-such-compiler")
    checks = {check.name: check for check in doctor_device.device_checks()}
    assert "GB/s, copying blocks of" in checks["cpu bandwidth"].found
    assert checks["cpu compile"].status == "note"
    assert "no-such-compiler" in checks["cpu compile"].found
    assert checks["cuda"].found == "no GPU"
    monkeypatch.setenv("CXX", sys.executable)
    checks = {check.name: check for check in doctor_device.device_checks()}
    assert checks["cpu compile"].status == "ok"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_engine_of_a_gpu_is_tried() -> None:
    checks = {check.name: check for check in doctor_device.device_checks()}
    for part in ("bandwidth", "bfloat16", "kernels", "graph", "compile"):
        assert checks[f"cuda:0 {part}"].status == "ok", checks[f"cuda:0 {part}"]


def test_both_tables_are_printed_and_both_are_in_the_json(
    specbench: Call, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    for name in ("_weights", "_sandbox", "_device"):
        monkeypatch.setattr(doctor, name, lambda: [])
    monkeypatch.setattr(doctor, "_results_folder", lambda folder: doctor.Finding("f", "ok", "fine"))
    shown = specbench("doctor")
    assert shown.exit_code == 0, shown.output
    assert "Models on" in shown.stdout and "llama31_8b" in shown.stdout
    values = json.loads(specbench("doctor", "--json").stdout)
    assert {check["name"] for check in values["checks"]} >= {"python", "torch", "hub"}
    (anole,) = [model for model in values["models"] if model["name"] == "anole"]
    assert anole["gigabytes"] == 14.3 and anole["where"] == "to fetch"


def test_a_damaged_entry_is_a_finding_and_not_a_crash(
    specbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(free: int) -> list[doctor_models.Need]:
        raise OSError("the disk is gone")

    for name in ("_weights", "_sandbox", "_device"):
        monkeypatch.setattr(doctor, name, lambda: [])
    monkeypatch.setattr(doctor, "_results_folder", lambda folder: doctor.Finding("f", "ok", "fine"))
    monkeypatch.setattr(doctor_models, "needs_of_models", broken)
    result = specbench("doctor")
    assert result.exit_code == 1
    assert "the disk is gone" in result.stdout
