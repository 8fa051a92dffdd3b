"""Calibration files: found where they fit, refused where they do not."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from specbench import calibration as calibrations
from specbench.calibration import Calibration, calibration_command, find_calibrations
from specbench.decoding.base import Decoder
from specbench.errors import ConfigError
from specbench.hosting import HostRequest, compose_jobs
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.schema.config import RunConfig


@dataclass
class Part:
    """A part that remembers what it was told."""

    calibration_path: str | None = None
    needs_calibration: bool = True
    told: list[Any] = field(default_factory=list)
    calibration_name = "toy"

    def work(self, limits: Any) -> int:
        return sum(limits)

    def calibrate(self, context: Any) -> dict[str, Any]:
        return {"answer": 42}

    def use(self, values: Any) -> None:
        self.told.append(values)


class WithPart(Decoder):
    def __init__(self, part: Part) -> None:
        self.part = part


def pair(digest: str = "sha256:a") -> ModelPair:
    model = TableModel(markov_table(1, 3, 0), 3)
    return ModelPair("toy", model, provenance={"target": {"digest": digest}})


def made(law: Law, digest: str = "sha256:a", name: str = "toy") -> Calibration:
    return Calibration(
        name, "toy", {"target": digest}, law.describe(), law.digest(), {"answer": 42}
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(calibrations, "conf_dir", lambda: tmp_path / "conf")
    ((_, config),) = compose_jobs(HostRequest(("method=sequoia", "sampling.temperature=0.5")))
    return replace(config, results_dir=tmp_path / "results")


def test_a_file_is_found_in_the_results_first_and_then_with_the_package(
    config: RunConfig, tmp_path: Path
) -> None:
    law = Law()
    part = Part()
    ours, shipped = tmp_path / "results/calibration", tmp_path / "conf/calibration"
    made(law).save(shipped)
    first = find_calibrations(config, WithPart(part), pair(), law)
    replace(made(law), values={"answer": 1}).save(ours)
    second = find_calibrations(config, WithPart(part), pair(), law)
    assert part.told == [{"answer": 42}, {"answer": 1}]
    assert first.keys() == second.keys() == {"toy"} and first != second


def test_a_missing_one_names_the_command(config: RunConfig) -> None:
    with pytest.raises(ConfigError) as refusal:
        find_calibrations(config, WithPart(Part()), pair(), Law(temperature=0.5))
    assert "temperature 0.5" in refusal.value.what
    assert calibration_command(config) in refusal.value.fix
    assert calibration_command(config).endswith(
        "calibrate method=sequoia model=tiny_text task=tiny sampling.temperature=0.5 "
        f"results_dir={config.results_dir}"
    )


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (made(Law(), digest="sha256:b"), "other weights"),
        (made(Law(temperature=0)), "another law"),
        (made(Law(), name="other"), "calibration of other"),
    ],
)
def test_one_for_something_else_is_refused(
    config: RunConfig, tmp_path: Path, calibration: Calibration, reason: str
) -> None:
    part = Part(calibration_path=str(calibration.save(tmp_path)))
    with pytest.raises(ConfigError, match=reason) as refusal:
        find_calibrations(config, WithPart(part), pair(), Law())
    assert "specbench calibrate" in refusal.value.fix
    assert part.told == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1}'])
def test_a_file_of_another_form_is_refused(config: RunConfig, tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a calibration"):
        find_calibrations(config, WithPart(Part(str(path))), pair(), Law())
    with pytest.raises(ConfigError, match="cannot be read"):
        find_calibrations(config, WithPart(Part(str(tmp_path / "none"))), pair(), Law())


def test_a_part_that_needs_none_is_left_alone(config: RunConfig) -> None:
    part = Part(needs_calibration=False)
    assert find_calibrations(config, WithPart(part), pair(), Law()) == {}
    assert find_calibrations(config, Decoder(), pair(), Law()) == {}


def test_what_is_saved_can_be_read_and_says_where_it_came_from(tmp_path: Path) -> None:
    law = Law(temperature=0.7)
    before = replace(made(law), provenance={"task": "tiny", "samples": ["a", "b"]})
    path = before.save(tmp_path)
    assert re.fullmatch(rf"toy-toy-[0-9a-f]{{8}}-{law.digest()[:8]}\.json", path.name)
    assert calibrations.read(path) == before
    assert json.loads(path.read_text())["provenance"]["samples"] == ["a", "b"]


@pytest.mark.parametrize("part", ["sequoia", "skipped_sublayers", "rank_accuracies"])
@pytest.mark.parametrize("temperature", ["0", "1"])
def test_the_package_ships_calibrations_of_the_embedded_pair(temperature: str, part: str) -> None:
    """They fit the weights that ship, and say what they were measured on."""
    from specbench.models import checkpoint
    from specbench.paths import conf_dir, weights_dir

    law = Law(temperature=float(temperature))
    (path,) = (conf_dir() / "calibration").glob(f"{part}-tiny_text-*-{law.digest()[:8]}.json")
    shipped = calibrations.read(path)
    assert path.name == shipped.file_name
    assert "target" in shipped.digests
    for role, digest in shipped.digests.items():
        files = checkpoint.find(f"embedded:tiny_text_{role}", None)
        assert digest == checkpoint.digest(files)
    assert shipped.law_hash == law.digest()
    assert shipped.provenance["samples"] and weights_dir().is_dir()
    assert shipped.values.get("rounds", 300) >= 300


def test_a_second_checkpoint_of_one_name_keeps_the_first_ones_file(
    config: RunConfig, tmp_path: Path
) -> None:
    """Every checkpoint of `model=hf` was called `hf`, and took the last one's place."""
    law, part = Law(), Part()
    ours = tmp_path / "results/calibration"
    first = made(law).save(ours)
    second = replace(made(law, "sha256:b"), values={"answer": 2}).save(ours)
    assert first != second
    for digest in ("sha256:a", "sha256:b"):
        find_calibrations(config, WithPart(part), pair(digest), law)
    assert part.told == [{"answer": 42}, {"answer": 2}]
    with pytest.raises(ConfigError, match="There is no calibration") as refusal:
        find_calibrations(config, WithPart(part), pair("sha256:c"), law)
    assert str(first) in refusal.value.why and "other weights" in refusal.value.why


def test_a_part_without_a_draft_is_found_beside_one(config: RunConfig, tmp_path: Path) -> None:
    part, models = Part(), pair()
    made(Law()).save(tmp_path / "results/calibration")
    models.provenance = {**models.provenance, "draft": {"digest": "sha256:d"}}
    find_calibrations(config, WithPart(part), models, Law())
    assert part.told == [{"answer": 42}]


def test_the_name_of_a_hub_is_no_path() -> None:
    name = replace(made(Law()), model="org/name of it").file_name
    assert name.startswith("toy-org_name_of_it-") and "/" not in name


def test_the_command_carries_what_an_entry_leaves_open() -> None:
    words = (
        "method=sequoia",
        "model=hf",
        "model.target=/my models/target",
        "model.draft=/my models/draft",
        "model.dtype=bfloat16",
        "task=gsm8k",
        "task.path=/data/gsm8k.jsonl",
        "task.limit=20",
        "sampling.temperature=0.6",
    )
    ((_, config),) = compose_jobs(HostRequest(words))
    assert shlex.split(calibration_command(config)) == ["specbench", "calibrate", *words]
