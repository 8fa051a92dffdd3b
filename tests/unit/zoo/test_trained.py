"""What ships trained says how, is whole, and belongs to the shipped target."""

from __future__ import annotations

import hashlib

import pytest
from safetensors import safe_open

from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint_files import training_of
from specbench.models.heads.load import find_head
from specbench.paths import weights_dir
from specbench.schema import catalog
from specbench.schema.model import ModelConfig

TRAINED = sorted(path.parent.name for path in weights_dir().glob("*/training.json"))


def test_a_draft_and_a_head_ship() -> None:
    assert {"tiny_text_distillspec", "tiny_text_eagle1"} <= set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_what_ships_was_trained_behind_the_shipped_target(name: str) -> None:
    folder = weights_dir() / name
    target = checkpoints.find("embedded:tiny_text_target", None)
    about = training_of(folder)
    assert about["target"]["digest"] == checkpoints.digest(target)
    assert name == f"tiny_text_{about['recipe']}"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {line[66:]: line[:64] for line in lines}
    assert set(sums) == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    for file, digest in sums.items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            dtypes = {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
        assert dtypes <= {"F16", "I64", "BOOL"}


def test_the_head_is_found_and_fits() -> None:
    entry = {**catalog.load("model", "tiny_text"), "head": "embedded:tiny_text_eagle1"}
    assert find_head(ModelConfig.from_dict(entry), ["eagle1"]).source == entry["head"]
