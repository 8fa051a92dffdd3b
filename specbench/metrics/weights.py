"""Where the rulers' own weights come from, and one clear sentence where they do not come."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
from huggingface_hub import try_to_load_from_cache

from specbench.errors import ConfigError, ModelError
from specbench.models.checkpoint import ask_hub
from specbench.paths import weights_dir

EMBEDDED = "embedded:"


def resolve(place: str, metric: str, key: str) -> Path:
    """Return the folder or file that `embedded:NAME` or a local path names.

    Args:
        place: What the user or the YAML says.
        metric: The metric, for the message.
        key: The metric's parameter, for the message.

    Raises:
        ModelError: If there is nothing.
    """
    name = place.removeprefix(EMBEDDED)
    path = weights_dir() / name if place.startswith(EMBEDDED) else Path(place).expanduser()
    if path.exists():
        return path
    if place.startswith(EMBEDDED):
        raise ModelError(
            f"The embedded weights '{name}' are missing",
            f"there is no {path}",
            "Install specbench again.",
        )
    raise ModelError(f"{metric} cannot find '{place}'", f"there is no {path}", f"Correct {key}.")


@contextlib.contextmanager
def reach_hub(
    metric: str, repository: str, file: str, key: str, revision: str | None = None
) -> Iterator[None]:
    """Let a library fetch from the hub inside, at once or not at all.

    A cached file is used without asking the hub. An unreachable hub is an error within seconds,
    where the libraries would try for minutes.

    Args:
        metric: Which metric needs the file.
        repository: ORG/NAME.
        file: The file that stands for all.
        key: The metric's parameter that takes a local copy.
        revision: Branch, tag or commit; None for the default.

    Raises:
        ModelError: If the file is neither cached nor to be fetched.
    """
    if isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
        constants = huggingface_hub.constants
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
        return
    try:
        ask_hub(repository, revision, file)
    except ModelError as error:
        raise missing(metric, file, f"huggingface.co/{repository}", key, error.why) from error
    yield


def missing(metric: str, file: str, source: str, key: str, reason: str) -> ModelError:
    """Return the error for weights that could not be fetched.

    Args:
        metric: Which metric needs them.
        file: The missing file.
        source: Where its library looked for it.
        key: The metric's parameter that takes a local copy.
        reason: Why not.
    """
    return ModelError(
        f"{metric} needs {file} from {source}, which cannot be fetched",
        reason,
        f"Without a network, give a local copy: {option(metric, key)}=PATH",
    )


def first_line(error: Exception) -> str:
    """Return the first line of what a library said, not too long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def option(metric: str, key: str) -> str:
    """Return how a metric's parameter is written on the command line, beside `metric=NAME`."""
    return f"metric.{metric}.{key}"


def need_between(metric: str, key: str, value: float, low: float, high: float) -> None:
    """Refuse a parameter outside its range.

    Raises:
        ConfigError: If the value is not between `low` and `high`.
    """
    if not low <= value <= high:
        raise ConfigError(
            f"{option(metric, key)} is {value:g}", f"it must lie between {low:g} and {high:g}"
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's weight files in order of their names."""
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
