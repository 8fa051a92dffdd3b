"""Calibration files: where a part's measurements are kept, and for what they are good.

`specbench calibrate` measures once what a part of a method must know of a model pair, such as
Sequoia's acceptance vector, and writes it here with its provenance. A run looks for the file that
fits its model and law, in its own results folder first and then among those that ship with the
package, and refuses one that was made for another model or another law.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from specbench.bounded import read_text, replacing
from specbench.decoding.base import Decoder
from specbench.decoding.calibrated import Calibrated, calibrated_parts
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.config import RunConfig, SamplingConfig

FOLDER = "calibration"
"""Name of the folder of calibrations, in a results folder and in `conf/`."""

_VERSION = 1

_MODEL_KEYS = ("target", "target_revision", "draft", "draft_revision", "dtype", "engine", "context")
_TASK_KEYS = ("path", "limit", "shots", "shots_path")
"""Keys of entries that a calibration's command carries where a run has set them."""


@dataclass(frozen=True)
class Calibration:
    """What was measured, for which model and law.

    Attributes:
        name: Which part it is of.
        model: The model entry's id.
        digests: Digest of each of the pair's checkpoints, by role.
        law: The target law in words.
        law_hash: Its hash.
        values: What the part measured.
        provenance: Task, samples, machine, versions, command and time.
        version: Version of the file's form.
    """

    name: str
    model: str
    digests: Mapping[str, str]
    law: str
    law_hash: str
    values: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    version: int = _VERSION

    @property
    def file_name(self) -> str:
        """Return what its file is called."""
        return file_name(self.name, self.model, self.law_hash, self.digests)

    def digest(self) -> str:
        """Return a hash of what a part reads of it."""
        text = json.dumps(self.values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, folder: Path) -> Path:
        """Write it into a folder and return its path; an earlier one is replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path


def file_name(name: str, model: str, law_hash: str, digests: Mapping[str, str]) -> str:
    """Return the name of the file of a part, model, its weights and law."""
    weights = hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()
    readable = re.sub(r"[^\w.-]+", "_", model)
    return f"{name}-{readable}-{weights[:8]}-{law_hash[:8]}.json"


def read(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigError: If there is none, or it is not a calibration of this version.
    """
    try:
        plain = json.loads(read_text(path))
        if plain.get("version") != _VERSION:
            raise ValueError(f"its version is {plain.get('version')}, and {_VERSION} is read")
        return Calibration(**{item.name: plain[item.name] for item in fields(Calibration)})
    except OSError as error:
        raise ConfigError(
            f"The calibration '{path}' cannot be read",
            error.strerror or str(error),
            "Correct the path, or make it with specbench calibrate.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"'{path}' is not a calibration",
            f"{type(error).__name__}: {error}",
            "Make it again with specbench calibrate.",
        ) from error


def find_calibrations(
    config: RunConfig, decoder: Decoder, models: ModelPair, law: Law
) -> dict[str, str]:
    """Give every part of a decoder the calibration that it needs.

    Args:
        config: The run: where results lie, and what its errors advise.
        decoder: The decoder; its parts adopt what is found.
        models: The loaded models.
        law: The target's law.

    Returns:
        The digest of each calibration that is used, by the part's name. It belongs to what
        identifies a measurement.

    Raises:
        ConfigError: If a calibration is missing or was made for another model or law.
    """
    used = {}
    for part in calibrated_parts(decoder):
        if part.needs_calibration or part.calibration_path is not None:
            calibration = _find(part, config, models, law)
            part.use(calibration.values)
            used[part.calibration_name] = calibration.digest()
    return used


def digests(models: ModelPair) -> dict[str, str]:
    """Return the digest of each checkpoint of a pair, by its role."""
    return {
        role: str(about["digest"])
        for role, about in models.provenance.items()
        if isinstance(about, Mapping) and "digest" in about
    }


def calibration_command(config: RunConfig) -> str:
    """Return the command that makes the calibration of a run, with what its entries leave open."""
    task = config.task
    words = [
        f"method={config.method.name}",
        f"model={config.model.name}",
        *_changed("model", config.model.name, vars(config.model), _MODEL_KEYS),
        f"task={task.name}",
        *_changed("task", task.name, task.node, _TASK_KEYS),
    ]
    for item in fields(SamplingConfig):
        value = getattr(config.sampling, item.name)
        if item.name != "seed" and value != item.default:
            shown = value if isinstance(value, str) else f"{value:g}"
            words.append(f"sampling.{item.name}={shown}")
    if str(config.results_dir) != "results":
        words.append(f"results_dir={config.results_dir}")
    return shlex.join(("specbench", "calibrate", *words))


def _changed(
    group: str, name: str, values: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[str]:
    """Yield the overrides by which a run's values of some keys differ from those of its entry."""
    try:
        entry = catalog.load(group, name)
    except ConfigError:  # an entry of the user's own: its folder is named on the command line
        return
    for key in keys:
        if values.get(key) != entry.get(key):
            yield f"{group}.{key}={'null' if values.get(key) is None else values[key]}"


def _find(part: Calibrated, config: RunConfig, models: ModelPair, law: Law) -> Calibration:
    command = calibration_command(config)
    present = digests(models)
    if part.calibration_path is not None:
        path = Path(part.calibration_path)
    else:
        folders = [folder / FOLDER for folder in (config.results_dir, conf_dir())]
        pattern = f"{part.calibration_name}-*-{law.digest()[:8]}.json"
        files = [file for folder in folders for file in sorted(folder.glob(pattern))]
        fitting = [file for file in files if _fits(read(file), models.name, present)]
        if not fitting:
            others = f"; {', '.join(map(str, files))}: made for other weights" if files else ""
            raise ConfigError(
                f"There is no calibration of {part.calibration_name.replace('_', ' ')} for "
                f"'{models.name}' ({law.describe()})",
                f"looked in {' and '.join(map(str, folders))}{others}",
                f"Make it with: {command}",
            )
        path = fitting[0]
    calibration = read(path)
    if calibration.name != part.calibration_name:
        raise ConfigError(
            f"'{path}' is a calibration of {calibration.name}",
            f"the method '{config.method.name}' needs one of {part.calibration_name}",
            f"Make it with: {command}",
        )
    if calibration.law_hash != law.digest():
        raise ConfigError(
            f"'{path}' was made for another law: {calibration.law}",
            f"the target's law is {law.describe()}",
            f"Make one for it with: {command}",
        )
    changed = _changed_roles(calibration, present)
    if changed:
        raise ConfigError(
            f"'{path}' was made for other weights",
            f"the {' and the '.join(changed)} of '{models.name}' are not those it was made for",
            f"Make it again with: {command}",
        )
    return calibration


def _fits(calibration: Calibration, model: str, present: Mapping[str, str]) -> bool:
    """Say whether a calibration was made for some weights; of toys, which have none, by name."""
    if calibration.digests:
        return not _changed_roles(calibration, present)
    return calibration.model == model


def _changed_roles(calibration: Calibration, present: Mapping[str, str]) -> list[str]:
    return [role for role, digest in calibration.digests.items() if present.get(role) != digest]
