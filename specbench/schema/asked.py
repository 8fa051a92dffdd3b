"""What a result file says was asked of a run: the runner's configuration, typed once for readers.

The runner writes its whole configuration into a file. Readers of files ask for what is here; what
an older file, or a file that was imported, does not say is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """The parts of a run's configuration that comparisons and predictions read.

    Attributes:
        parameters: The method's own parameters.
        decoder: The parts that it is made of; None where nobody says.
        family: The group that the method is listed with.
        needs: What it needs of a model.
        baseline_parameters: The baseline's own parameters.
        target: The checkpoint that ran.
        draft: Its draft.
        draft_revision: Hub revision of the draft.
        parallel_draft: What stood in its place for methods that need a parallel one.
        head: The head that drafted behind the target's states.
        head_revision: Hub revision of the head.
        modality: What the model generates.
        seed: Key of the random streams.
        cfg_scale: Scale of guidance.
        max_new_tokens: The run's own limit a turn.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    decoder: Any = None
    family: str = ""
    needs: tuple[str, ...] = ()
    baseline_parameters: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    draft: str | None = None
    draft_revision: str | None = None
    parallel_draft: str | None = None
    head: str | None = None
    head_revision: str | None = None
    modality: str = "text"
    seed: int = 0
    cfg_scale: float | None = None
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a configuration; a value of another kind than its key's counts as not said."""
        method, model, sampling = (_group(config, key) for key in ("method", "model", "sampling"))
        needs = method.get("needs")
        return cls(
            parameters=_group(method, "parameters"),
            decoder=method.get("decoder"),
            family=_text(method, "family") or "",
            needs=tuple(needs) if isinstance(needs, (list, tuple)) else (),
            baseline_parameters=_group(_group(config, "baseline"), "parameters"),
            target=_text(model, "target"),
            draft=_text(model, "draft"),
            draft_revision=_text(model, "draft_revision"),
            parallel_draft=_text(model, "parallel_draft"),
            head=_text(model, "head"),
            head_revision=_text(model, "head_revision"),
            modality=_text(model, "modality") or "text",
            seed=int(_number(sampling, "seed") or 0),
            cfg_scale=_number(sampling, "cfg_scale"),
            max_new_tokens=_number(config, "max_new_tokens"),
        )


def _group(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = values.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _number(values: Mapping[str, Any], key: str) -> Any:
    value = values.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
