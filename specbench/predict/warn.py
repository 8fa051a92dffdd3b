"""What a reader of a prediction must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specbench.errors import ConfigError
from specbench.predict.profile import Profile
from specbench.predict.resolve import hardware_entries, shape_named
from specbench.predict.roofline import Roofline
from specbench.predict.speedup import Prediction, Question
from specbench.schema.hardware import BYTES, Hardware

_GIGA = 1e9


def warnings_of(
    predictions: Sequence[Prediction], question: Question, folders: Sequence[Path] = ()
) -> list[str]:
    """Return sentences on other models than were measured, on memory and on odd drafts."""
    profiles = [prediction.profile for prediction in predictions]
    return [
        *_other_models(profiles, question, folders),
        *_memory(predictions, question, folders),
        *_draft(profiles, question),
    ]


def _other_models(
    profiles: Sequence[Profile], question: Question, folders: Sequence[Path]
) -> list[str]:
    pairs = dict.fromkeys((profile.model, profile.target, profile.draft) for profile in profiles)
    uses_draft = any(profile.drafter == "model" for profile in profiles)
    others = []
    for model, target, draft in pairs:
        same = _is(target, question.target.name, folders)
        if uses_draft and draft is not None and question.draft is not None:
            same = same and _is(draft, question.draft.name, folders)
        if not same:
            others.append(model)
    if not others:
        return []
    return [
        f"Acceptance was measured on {', '.join(dict.fromkeys(others))}, not on the pair that is "
        "predicted. It holds on any machine, but not for any model: give files of that pair, or "
        "read this as a pair with the same acceptance."
    ]


def _is(checkpoint: str, name: str, folders: Sequence[Path]) -> bool:
    if checkpoint == name:
        return True
    try:
        return shape_named(checkpoint, "target", folders).name == name
    except ConfigError:
        return False


def _memory(
    predictions: Sequence[Prediction], question: Question, folders: Sequence[Path]
) -> list[str]:
    roofline = Roofline(question.hardware, question.dtype, question.context)
    usable, target = roofline.usable_memory(), question.target
    weights = roofline.memory(target, 0)
    device = question.hardware
    if weights > usable:
        return [
            f"{target.title} in {question.dtype} needs {weights / _GIGA:.0f} GB for its weights; "
            f"{device.name} has {device.memory_bytes / _GIGA:.0f} GB, of which "
            f"{usable / _GIGA:.0f} are taken to be usable. One device cannot hold it, and several "
            f"are not modelled. {_advice(question, folders)}"
        ]
    tight = [
        f"batch {batch.batch} ({batch.memory_bytes / _GIGA:.0f} GB)"
        for batch in max(predictions, key=lambda p: p.batches[0].memory_bytes).batches
        if not batch.fits
    ]
    if not tight:
        return []
    return [
        f"{device.name} cannot hold {', '.join(tight)} at {question.context} tokens of context "
        f"({usable / _GIGA:.0f} GB are taken to be usable): the figures there say what would be, "
        "if it could."
    ]


def _advice(question: Question, folders: Sequence[Path]) -> str:
    """Return which number format or device would hold the target's weights."""

    def holds(device: Hardware, dtype: str) -> bool:
        roofline = Roofline(device, dtype, question.context)
        return roofline.memory(question.target, 1) <= roofline.usable_memory()

    smaller = [
        dtype
        for dtype in question.hardware.flops
        if BYTES[dtype] < BYTES[question.dtype] and holds(question.hardware, dtype)
    ]
    larger = [
        device.name
        for device in hardware_entries(folders)
        if question.dtype in device.flops and holds(device, question.dtype)
    ]
    options = []
    if smaller:
        options.append(f"--dtype {smaller[0]}")
    if larger:
        options.append(f"--hardware {' or '.join(larger)}")
    return (
        f"It would fit with {', or with '.join(options)}." if options else "Nothing known holds it."
    )


def _draft(profiles: Sequence[Profile], question: Question) -> list[str]:
    draft = question.draft
    runs = any(profile.drafter == "model" for profile in profiles)
    if draft is None or not runs or draft.parameters < question.target.parameters:
        return []
    return [
        f"The draft ({draft.title}, {draft.parameters / _GIGA:.2g} billion weights) is not smaller "
        f"than the target ({question.target.title}, {question.target.parameters / _GIGA:.2g}): "
        "are --target and --draft the wrong way round?"
    ]
