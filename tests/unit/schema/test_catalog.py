"""Entries read from YAML files, without composing a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from specbench.errors import ConfigError
from specbench.schema import catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    group = tmp_path / "method"
    group.mkdir()
    (group / "mine.yaml").write_text(
        "defaults: [token_sd, _self_]\nname: mine\ndecoder: {topology: {depth: 9}}\n"
    )
    (group / "broken.yaml").write_text("name: [\n")
    (group / "empty.yaml").write_text("# nothing\n")
    return tmp_path


def test_names_are_sorted_and_cover_every_folder(folder: Path) -> None:
    own = catalog.names("method")
    assert own == sorted(own)
    assert {"ar", "token_sd", "pld"} <= set(own)
    assert set(catalog.names("method", [folder])) == {*own, "mine", "broken", "empty"}


def test_an_entry_builds_on_another(folder: Path) -> None:
    entry = catalog.load("method", "mine", [folder])
    parent = catalog.load("method", "token_sd")
    assert entry["name"] == "mine"
    assert entry["exactness"] == parent["exactness"]
    assert entry["decoder"]["topology"] == {**parent["decoder"]["topology"], "depth": 9}
    assert "defaults" not in entry


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.load("method", "tokn_sd")
    assert caught.value.what == "Unknown method 'tokn_sd'. Did you mean 'token_sd'?"
    assert "pld" in caught.value.why
    assert "specbench list methods" in caught.value.fix


def test_a_file_that_is_not_yaml_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        catalog.load("method", "broken", [folder])
    with pytest.raises(ConfigError, match=r"empty\.yaml"):
        catalog.load("method", "empty", [folder])


@pytest.mark.parametrize("written", ["3", "token_sd", "[3]", "[{token_sd: 1}]"])
def test_what_an_entry_builds_on_is_a_list_of_names(folder: Path, written: str) -> None:
    (folder / "method" / "mine.yaml").write_text(f"defaults: {written}\n")
    with pytest.raises(ConfigError, match="no list of names"):
        catalog.load("method", "mine", [folder])


def test_entries_that_build_on_each_other_are_refused(folder: Path) -> None:
    for name, parent in {"mine": "yours", "yours": "mine"}.items():
        (folder / "method" / f"{name}.yaml").write_text(f"defaults: [{parent}]\n")
    with pytest.raises(ConfigError, match="mine -> yours -> mine"):
        catalog.load("method", "mine", [folder])


def test_a_file_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "method" / "broken.yaml").write_bytes(b"\xff\x80")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        catalog.load("method", "broken", [folder])
