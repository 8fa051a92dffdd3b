"""`specbench doctor`: is this machine ready, and what should be known before measuring on it?"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specbench.cli.console import print_json, stdout
from specbench.cli.doctor_device import Finding
from specbench.cli.options import Json
from specbench.errors import SpecbenchError

if TYPE_CHECKING:
    from specbench.cli.doctor_models import Need

_HUB = "huggingface.co"
_HUB_TIMEOUT_S = 2.0


def doctor(
    json: Json = False,
    results_dir: Annotated[
        Path, typer.Option("--results-dir", help="The folder that runs write to.")
    ] = Path("results"),
) -> None:
    """Check this machine: versions, devices and their engines, weights, sandbox, network.

    The copy bandwidth is measured; on a GPU, bfloat16, kernels, graphs and compilation are tried.
    The table says what each model entry would need here. Exits with 1 where the embedded default
    run would fail.
    """
    checks: list[Finding] = []
    looks: list[tuple[str, Callable[[], list[Finding]]]] = [
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
            checks.append(Finding(name, "bad", error.what, error.fix or error.why))
        except Exception as error:
            checks.append(Finding(name, "bad", f"{type(error).__name__}: {error}"))
    place, needs = _needs(checks)
    if json:
        print_json(
            {
                "checks": [check._asdict() for check in checks],
                "models_on": place,
                "models": [need._asdict() for need in needs],
            }
        )
    else:
        _print(checks)
        _print_needs(place, needs)
    if any(check.status == "bad" for check in checks):
        raise typer.Exit(1)


def _needs(checks: list[Finding]) -> tuple[str, list[Need]]:
    """Return the device that runs take, in words, and what every model entry needs of it."""
    from specbench.cli.doctor_models import device_of_runs, needs_of_models

    try:
        device, free = device_of_runs()
        return f"{device}, {free / 1e9:.1f} GB free", needs_of_models(free)
    except Exception as error:
        checks.append(Finding("models", "bad", f"{type(error).__name__}: {error}"))
        return "", []


def _print_needs(place: str, needs: list[Need]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not needs:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, justify in (("model", "left"), ("GB", "right"), ("weights", "left"), ("", "left")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for need in needs:
        fits = {True: ("fits", "green"), False: ("does not fit", "yellow"), None: ("–", "")}
        words, style = fits[need.fits]
        size = "–" if need.gigabytes is None else f"{need.gigabytes:.1f}"
        if need.gigabytes is not None and need.gigabytes < 0.1:
            size = f"{need.gigabytes:.3f}"
        table.add_row(need.name, size, need.where, Text(words, style=style))
    stdout().print()
    stdout().print(Text(f"Models on {place}", style="bold cyan"))
    stdout().print(table)
    stdout().print(
        Text("Gigabytes of weights, drafts included; the cache comes on top.", style="dim")
    )


def _print(checks: list[Finding]) -> None:
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


def _python() -> list[Finding]:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    return [
        Finding(
            "python", "ok" if fine else "bad", version, "" if fine else "Use Python 3.11 or later."
        )
    ]


def _libraries() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    checks = []
    for name in ("torch", "transformers", "hydra-core", "pyarrow", "datasets"):
        try:
            checks.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Finding(name, "bad", "not installed", "Run 'make install'."))
    return checks


def _device() -> list[Finding]:
    from specbench.cli.doctor_device import device_checks

    return device_checks()


def _weights() -> list[Finding]:
    from specbench.models import checkpoint
    from specbench.paths import weights_dir
    from specbench.schema import catalog

    checks = []
    for name in catalog.names("model"):
        entry = catalog.load("model", name)
        places = {"target": entry.get("target"), "draft": entry.get("draft")}
        places |= {f"head {family}": at for family, at in (entry.get("heads") or {}).items()}
        for role, place in places.items():
            if str(place).startswith(checkpoint.EMBEDDED):
                folder = weights_dir() / str(place).removeprefix(checkpoint.EMBEDDED)
                checks.append(_digests(f"{name} {role}", folder))
    return checks


def _digests(name: str, folder: Path) -> Finding:
    """Compare a folder's files with the digests that were shipped with them."""
    listing = folder / "SHA256SUMS"
    if not listing.is_file():
        return Finding(name, "note", "present", "It ships no digests to compare with.")
    lines = listing.read_text(encoding="utf-8").splitlines()
    for line in lines:
        expected, file = line.split(maxsplit=1)
        with (folder / file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                return Finding(name, "bad", f"'{file}' is damaged", "Install specbench again.")
    return Finding(name, "ok", f"{len(lines)} files, digests right")


def _sandbox() -> list[Finding]:
    from specbench.tasks.sandbox import run_python, thin_walls

    good = run_python("assert 1 + 1 == 2\n")
    bad = run_python("assert 1 + 1 == 3\n")
    if good.status == "passed" and bad.status != "passed":
        found = f"runs generated code, held by {', '.join(good.mechanisms)}"
        thin = thin_walls(good.mechanisms)
        return [Finding("sandbox", "note" if thin else "ok", found, thin or "")]
    return [
        Finding(
            "sandbox",
            "bad",
            f"a right program was '{good.status}', a wrong one '{bad.status}'",
            "Code tasks cannot be scored here; score=false leaves scoring out.",
        )
    ]


def _results_folder(folder: Path) -> Finding:
    from specbench.store import check_writable

    check_writable(folder)
    return Finding("results folder", "ok", f"{folder} can be written")


def _hub() -> list[Finding]:
    advice = "Embedded models and tasks run; hub models need a cached copy or a local folder."
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return [Finding("hub", "note", f"offline by {variable}", advice)]
    try:
        with socket.create_connection((_HUB, 443), timeout=_HUB_TIMEOUT_S):
            return [Finding("hub", "ok", f"{_HUB} answers")]
    except OSError as error:
        return [Finding("hub", "note", f"{_HUB} does not answer ({error})", advice)]
