"""Programs that once left the sandbox, or left something behind, do so no more.

`python -m benchmarks.sandbox_attacks` runs every attack with every wall taken away.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.attacks import ATTACKS
from benchmarks.sandbox_attacks import WITHOUT, attempt, supervisors
from specbench.tasks import removal, sandbox
from specbench.tasks.base import Sample
from specbench.tasks.sandbox import KERNEL_WALLS, thin_walls
from specbench.tasks.scorers import PassAt1, code

HELD = sandbox.mechanisms()
SIGNALS = [name for name in ATTACKS if "has the kernel send it" in name]
PAIRS = [name for name in ATTACKS if name.startswith("network: ") and "pair" in name]
BY_OTHER_NAMES = ("sends by the C library", "sends from packets", "sends from a stream")
NETWORK = [*PAIRS, *(f"network: {name}" for name in BY_OTHER_NAMES)]
WITHOUT_KERNEL = [
    *(name for name in ATTACKS if name.startswith("processes: ") and "spawn" in name),
    *(name for name in ATTACKS if "descriptor" in name and name.startswith("changes")),
    *("changes: makes a pipe", "changes: makes a node", "changes: climbs from another folder"),
    *("changes: writes as another text", "changes: writes with builtins patched"),
    *("changes: attaches by SQLite", "changes: writes a key log"),
    *("changes: writes from another interpreter", "space: its folder removed"),
]
SPACE = ("long names", "mapped files without names", "many small files", "closed folders")
HIDDEN = ("asks for a size", "asks for a size by statx", "asks whether a file is there")

needs_kernel = pytest.mark.skipif(
    not {"seccomp", "landlock"} <= set(HELD),
    reason="this kernel offers no system-call filter or no file rules",
)
needs_root = pytest.mark.skipif(
    "private-root" not in HELD, reason="this machine offers no mounts to its users"
)


def holds(name: str, without: tuple[str, ...]) -> None:
    effect = attempt(ATTACKS[name], without)
    assert not (effect.escaped or effect.forged or effect.left_over or effect.unscored), effect


@needs_kernel
@pytest.mark.parametrize("name", SIGNALS)
def test_the_kernel_sends_no_signals_for_a_program_before_landlock_bounds_them(name: str) -> None:
    holds(name, WITHOUT["the same, no namespaces"])


@needs_kernel
@pytest.mark.parametrize("name", NETWORK)
def test_no_pair_of_sockets_reaches_a_third(name: str) -> None:
    holds(name, ("namespaces",))


@pytest.mark.parametrize("name", WITHOUT_KERNEL)
def test_the_hook_refuses_what_the_interpreter_does_not_report(name: str) -> None:
    holds(name, KERNEL_WALLS)


@pytest.mark.parametrize("name", SPACE)
def test_no_way_to_store_evades_the_limit(name: str) -> None:
    holds(f"space: {name}", ())


@pytest.mark.parametrize("name", SPACE)
def test_what_is_stored_without_a_disk_is_found(name: str) -> None:
    """A folder is looked at every so often: a fast program ends before, and fails all the same."""
    effect = attempt(ATTACKS[f"space: {name}"], ("private-root",))
    assert not (effect.forged or effect.left_over or effect.unscored), effect
    assert not effect.escaped or effect.verdict.status == "output_limit", effect


@needs_root
@pytest.mark.parametrize("name", HIDDEN)
def test_files_outside_cannot_even_be_asked_for(name: str) -> None:
    holds(f"reads: {name}", ())


@needs_kernel
@pytest.mark.parametrize("without", [(), ("private-root",)], ids=["root", "rules"])
@pytest.mark.parametrize("name", ["reads the harness", "imports by the finder", "NumPy reads"])
def test_neither_the_harness_nor_other_files_can_be_read(
    name: str, without: tuple[str, ...]
) -> None:
    holds(f"reads: {name}", without)


def test_deep_folders_of_long_names_leave_nothing_and_score_zero() -> None:
    holds("space: 1,500 nested folders", ("namespaces",))
    assert not supervisors()


def nested(folder: Path, levels: int, name: str) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        os.symlink("/", "link", dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.mkdir("closed", 0, dir_fd=here)
    os.close(here)


def test_removal_needs_no_recursion_and_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    nested(folder, 1050, "n" * 250)
    (folder / "lifted-0").mkdir()
    (folder / "lifted-0" / "lifted-1").mkdir(0)
    assert removal.remove(str(folder)) is None
    assert not folder.exists()


def test_removal_follows_no_link(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "kept").touch()
    (folder / "link").symlink_to(other)
    assert removal.remove(str(folder)) is None
    assert (other / "kept").exists() and not folder.exists()


def test_what_cannot_be_removed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def refuse(folder: str) -> OSError:
        kept.append(folder)
        return OSError("busy")

    monkeypatch.setattr(removal, "remove", refuse)
    verdict = sandbox.run_python("pass")
    monkeypatch.undo()
    assert verdict.status == "unavailable" and "cannot be removed: busy" in verdict.detail
    assert removal.remove(kept[0]) is None


def test_a_scorer_that_fails_gives_no_score_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(code, "run_tests", fail)
    reference = {"prefix": "", "entry_point": "f", "test": "def check(c): pass"}
    sample = Sample(id="a", category="code", turns=("turn",), reference=reference)
    score = PassAt1().score(sample, ["def f(): pass"])
    assert score.value is None and score.detail == "the scorer failed: RecursionError: too deep"


def test_thin_walls_are_named() -> None:
    full = ("namespaces", "private-root", "capabilities", "limits", "landlock", "seccomp")
    assert thin_walls(full) is None
    assert thin_walls(("limits", "landlock", "seccomp")) is None
    assert "thin" in str(thin_walls(("limits", "audit-hook")))
    assert "read your files" in str(thin_walls(("capabilities", "limits", "seccomp")))


def test_a_machine_without_kernel_walls_says_so() -> None:
    verdict = sandbox._run(["pass"], None, "", "", sandbox.Limits(), KERNEL_WALLS)
    assert "thin" in str(thin_walls(verdict.mechanisms))
