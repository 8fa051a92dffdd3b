"""How close measured runs came to the memory-bandwidth limit of the device that ran them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from specbench.errors import ConfigError
from specbench.predict.profile import Profile
from specbench.predict.recorded import RecordedModel
from specbench.predict.resolve import Role, hardware_entries, shape_named
from specbench.predict.roofline import roofline_fraction
from specbench.schema.hardware import BYTES, Hardware


class Share(NamedTuple):
    """One method's share of the memory-bandwidth limit, with that of its baseline.

    Attributes:
        label: The method, with what tells it from others of its name.
        setting: Model, law and device.
        hardware: Title of the hardware entry whose bandwidth is the limit, or empty.
        method: `roofline_fraction` of the method, or None where it is not known.
        baseline: The same of plain decoding in the same files.
        reason: Why there is none, or empty.
    """

    label: str
    setting: str
    hardware: str
    method: float | None
    baseline: float | None
    reason: str


def shares_of(
    profiles: Sequence[Profile], hardware: Hardware | None = None, folders: Sequence[Path] = ()
) -> tuple[Share, ...]:
    """Return the share of each method of the bandwidth of the device that measured it.

    Args:
        profiles: The methods.
        hardware: The device that measured all of them; None seeks an entry with its name.
        folders: Configuration folders beside the project's own.
    """
    entries = hardware_entries(folders) if hardware is None else []
    return tuple(
        _share(profile, hardware or _named(profile.device, entries), folders)
        for profile in profiles
    )


def _named(device: str, entries: Sequence[Hardware]) -> Hardware | None:
    """Return the entry that a driver's name for a device belongs to."""
    return next((entry for entry in entries if device in entry.devices), None)


def _share(profile: Profile, hardware: Hardware | None, folders: Sequence[Path]) -> Share:
    share = Share(profile.label, profile.setting, "", None, None, "")
    if hardware is None:
        return share._replace(reason=f"no hardware entry has the device '{profile.device}'")
    target = _multiplied_bytes(profile, "target", profile.target, folders)
    draft = 0.0
    if profile.drafter == "model":
        draft = _multiplied_bytes(profile, "draft", str(profile.draft), folders) or 0.0
    if target is None:
        return share._replace(reason=f"the shape of '{profile.target}' is not known")

    def of(totals: Mapping[str, int]) -> float | None:
        measured = {name: float(value) for name, value in totals.items()}
        return roofline_fraction(measured, target, hardware.bandwidth, draft) if measured else None

    method, baseline = of(profile.totals), of(profile.baseline_totals)
    reason = "" if method is not None else "the files do not record forwards and times"
    return share._replace(hardware=hardware.title, method=method, baseline=baseline, reason=reason)


def _multiplied_bytes(
    profile: Profile, role: Role, name: str, folders: Sequence[Path]
) -> float | None:
    """Return the bytes that a forward must read, from the file or else from the model's name."""
    recorded = profile.models.get(role)
    if recorded is not None:
        return recorded.multiplied_bytes
    if profile.dtype not in BYTES:
        return None
    try:
        shape = shape_named(name, role, folders)
    except ConfigError:
        return None
    return RecordedModel(shape, BYTES[profile.dtype]).multiplied_bytes
