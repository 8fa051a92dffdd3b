"""`specbench doctor`: is this machine ready, and what should be known before measuring on it?"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from specbench.cli.console import print_json, stdout
from specbench.errors import SpecbenchError

_HUB = "huggingface.co"
_HUB_TIMEOUT_S = 2.0


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        status: "ok", "note" (works, with advice) or "bad" (a run would fail).
        found: What was found.
        advice: What to do, or empty.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    results_dir: Annotated[
        Path, typer.Option("--results-dir", help="The folder that runs write to.")
    ] = Path("results"),
) -> None:
    """Check this machine: versions, devices, embedded weights, sandbox, results folder, network.

    Exits with 1 where the embedded default run would fail.
    """
    checks: list[Check] = []
    looks: list[tuple[str, Callable[[], list[Check]]]] = [
        ("python", _python),
        ("libraries", _libraries),
        ("device", _device),
        ("embedded weights", _weights),
        ("sandbox", _sandbox),
        ("results folder", lambda: [_results_folder(results_dir)]),
        ("hub", _hub),
    ]
    for name, look in looks:
        try:
            checks += look()
        except SpecbenchError as error:
            checks.append(Check(name, "bad", error.what, error.fix or error.why))
        except Exception as error:
            checks.append(Check(name, "bad", f"{type(error).__name__}: {error}"))
    if json:
        print_json([check._asdict() for check in checks])
    else:
        _print(checks)
    if any(check.status == "bad" for check in checks):
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "bad": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = check.found + (f"\n{check.advice}" if check.advice else "")
        table.add_row(Text(check.status, style=styles[check.status]), Text(check.name), Text(text))
    stdout().print(table)


def _python() -> list[Check]:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    return [
        Check(
            "python", "ok" if fine else "bad", version, "" if fine else "Use Python 3.11 or later."
        )
    ]


def _libraries() -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    checks = []
    for name in ("torch", "transformers", "hydra-core", "pyarrow", "datasets"):
        try:
            checks.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, "bad", "not installed", "Run 'make install'."))
    return checks


def _device() -> list[Check]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    checks = [Check("cpu", "ok", f"{platform.machine()}, {cores} cores, {threads} torch threads")]
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > 0.5 * (cores or 1)
        checks.append(
            Check(
                "load",
                "note" if busy else "ok",
                f"{load:.1f} in the last minute",
                "Other work runs here; times will be noisy." if busy else "",
            )
        )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = about.total_memory / 2**30
            checks.append(Check(f"cuda:{index}", "ok", f"{about.name}, {memory:.0f} GiB"))
    else:
        checks.append(
            Check("cuda", "note", "no GPU", "The embedded models run on the CPU; 8B models do not.")
        )
    return checks


def _weights() -> list[Check]:
    from specbench.models import checkpoint
    from specbench.schema import catalog

    checks = []
    for name in catalog.names("model"):
        entry = catalog.load("model", name)
        for role in ("target", "draft"):
            place = str(entry.get(role))
            if place.startswith("embedded:"):
                files = checkpoint.find(place, None)
                checks.append(_digests(f"{name} {role}", Path(files.location)))
    return checks


def _digests(name: str, folder: Path) -> Check:
    """Compare a folder's files with the digests that were shipped with them."""
    listing = folder / "SHA256SUMS"
    if not listing.is_file():
        return Check(name, "note", "present", "It ships no digests to compare with.")
    lines = listing.read_text(encoding="utf-8").splitlines()
    for line in lines:
        expected, file = line.split(maxsplit=1)
        with (folder / file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                return Check(name, "bad", f"'{file}' is damaged", "Install specbench again.")
    return Check(name, "ok", f"{len(lines)} files, digests right")


def _sandbox() -> list[Check]:
    from specbench.tasks.sandbox import run_python

    good = run_python("assert 1 + 1 == 2\n")
    bad = run_python("assert 1 + 1 == 3\n")
    if good.status == "passed" and bad.status != "passed":
        return [Check("sandbox", "ok", "runs generated code and tells right from wrong")]
    return [
        Check(
            "sandbox",
            "bad",
            f"a right program was '{good.status}', a wrong one '{bad.status}'",
            "Code tasks cannot be scored here; score=false leaves scoring out.",
        )
    ]


def _results_folder(folder: Path) -> Check:
    from specbench.store import check_writable

    check_writable(folder)
    return Check("results folder", "ok", f"{folder} can be written")


def _hub() -> list[Check]:
    advice = "Embedded models and tasks run; hub models need a cached copy or a local folder."
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return [Check("hub", "note", f"offline by {variable}", advice)]
    try:
        with socket.create_connection((_HUB, 443), timeout=_HUB_TIMEOUT_S):
            return [Check("hub", "ok", f"{_HUB} answers")]
    except OSError as error:
        return [Check("hub", "note", f"{_HUB} does not answer ({error})", advice)]
