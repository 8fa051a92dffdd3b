"""Which result files may stand side by side, and what must be said where they may not.

Two numbers mean the same only under the same ruler. Some of a file's circumstances must agree
across all files of a comparison, and some only among files of one task; a difference is refused
unless the user allows it by name, and then a banner says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from specbench.errors import NotComparable, UsageError, did_you_mean
from specbench.store import ResultSet


class Ruler(NamedTuple):
    """What must be equal between files that are compared, each as one printable value.

    Attributes:
        model: Model id, with the target's checkpoint where the configuration names it.
        law: Hash of the target law, with its description.
        dtype: Compute dtype.
        device: Device name.
        threads: CPU threads, where the run recorded them.
        engine: Which engine ran the target.
        baseline: Method and parameters of the baseline arm; empty without one.
        task: Digest and version of the task's samples and protocol.
        scorer: Scorers and their versions.
        max_new_tokens: Limit of each turn, where the run set one.
        fidelity: Version of the grades of outputs that differ from the baseline's; empty where
            none does.
        counting: How drafted and accepted tokens were counted; empty for imported files.
        load: How requests reached an imported file's server, where that is recorded.
    """

    model: str
    law: str
    dtype: str
    device: str
    threads: str
    engine: str
    baseline: str
    task: str
    scorer: str
    max_new_tokens: str
    fidelity: str
    counting: str
    load: str


QUALITY, PROMPTS = "quality", "prompts"

ALLOWABLE = (*Ruler._fields, QUALITY, PROMPTS)
"""Names that the `allow` of a comparison understands."""

PER_TASK = ("task", "scorer", "max_new_tokens")
"""Fields that differ between tasks by nature and must agree inside of one."""

_MAY_BE_EMPTY = ("baseline", "fidelity", "counting", "load")
"""Fields of which a file may say nothing, and then agrees with every other."""

_MEANING = {
    "model": "the models differ",
    "law": "the target laws differ, so that the arms do not draw from one distribution",
    "dtype": "the compute dtypes differ",
    "device": "the devices differ",
    "threads": "the numbers of CPU threads differ",
    "engine": "the engines that ran the target differ",
    "baseline": "the baselines differ, so that the speedups have different denominators",
    "task": "the samples or the prompt protocols differ",
    "scorer": "the scorers' versions differ",
    "max_new_tokens": "the limits on new tokens differ",
    "fidelity": "outputs that differ from the baseline's were graded in different ways",
    "counting": "drafted and accepted tokens were counted in different ways",
    "load": "the servers were loaded differently",
    PROMPTS: "the models were asked otherwise: the prompts of one sample differ as tokens",
    QUALITY: "a metric of the pictures was computed in different ways",
}


def ruler_of(result: ResultSet) -> Ruler:
    """Return the circumstances of one file."""
    data = result.metadata
    asked, target = data.asked, data.asked.target
    return Ruler(
        model=f"{data.model} ({target})" if target else data.model,
        law=f"{data.law_hash} ({data.law})" if data.law else data.law_hash,
        dtype=data.dtype,
        device=data.device,
        threads=_text(data.timing.get("threads")),
        engine=data.engine,
        baseline=_baseline(data.baseline.name, asked.baseline_parameters) if data.baseline else "",
        task=f"{data.task_digest} (version {data.task_version})",
        scorer=json.dumps(dict(data.scorer), sort_keys=True),
        max_new_tokens=_text(asked.max_new_tokens),
        fidelity=_fidelity(result),
        counting="" if data.source else f"version {data.timing.get('counting', 1)}",
        load=_text(data.timing.get("load")),
    )


def check_allow(allow: Iterable[str]) -> frozenset[str]:
    """Return the allowed differences.

    Raises:
        UsageError: If one of them is not the name of a difference.
    """
    allowed = frozenset(allow)
    for name in sorted(allowed):
        if name not in ALLOWABLE:
            raise UsageError(
                f"Cannot allow '{name}' to differ",
                f"the differences that can be allowed are: {', '.join(ALLOWABLE)}",
                did_you_mean(name, ALLOWABLE),
            )
    return allowed


def check_comparable(
    results: Sequence[ResultSet], allow: Collection[str]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Check that all files were measured under one ruler.

    Args:
        results: The files.
        allow: Names of `ALLOWABLE` that may differ.

    Returns:
        The fields that differ, and a banner for each.

    Raises:
        NotComparable: If a field differs that is not allowed to.
    """
    rulers = [ruler_of(result) for result in results]
    differing: set[str] = set()
    banners = []
    for name in ALLOWABLE:
        if name == QUALITY:
            clash = _quality_clash(results)
        elif name == PROMPTS:
            clash = None if "model" in differing else _prompts_clash(results)
        else:
            clash = _first_clash(name, results, rulers)
        if clash is None:
            continue
        one, other, first, second = clash
        if name not in allow:
            fix = f"Compare them apart, or allow it with --allow {name}."
            if name == "law" and any(results[i].metadata.law == "unknown" for i in (one, other)):
                fix = f"State it when importing (--temperature). {fix}"
            raise NotComparable(
                f"'{results[one].path.name}' and '{results[other].path.name}' are not comparable",
                f"{_MEANING[name]}: {first} and {second}",
                fix,
            )
        differing.add(name)
        banners.append(f"Allowed difference: {_MEANING[name]} ({first} and {second}).")
    return frozenset(differing), tuple(banners)


class _Clash(NamedTuple):
    """Two files that differ, and what each says."""

    one: int
    other: int
    first: str
    second: str


def _first_clash(name: str, results: Sequence[ResultSet], rulers: Sequence[Ruler]) -> _Clash | None:
    """Return the first two files that differ in one field, or None."""
    seen: dict[str, int] = {}
    for index, (result, ruler) in enumerate(zip(results, rulers, strict=True)):
        if name in _MAY_BE_EMPTY and not getattr(ruler, name):
            continue
        scope = result.metadata.task if name in PER_TASK else ""
        earlier = seen.setdefault(scope, index)
        first, second = getattr(rulers[earlier], name), getattr(ruler, name)
        if first != second:
            return _Clash(earlier, index, first, second)
    return None


def _quality_clash(results: Sequence[ResultSet]) -> _Clash | None:
    """Return the first two files of a task that measured one metric in different ways.

    A metric that only some files have is no difference: it has no value in the others.
    """
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for index, result in enumerate(results):
        data = result.metadata
        for metric, about in data.metrics.items():
            references = {
                str(values[metric].get("reference", ""))
                for values in data.corpus.values()
                if metric in values
            }
            parts = [f"{metric}: {about.get('protocol')}", *sorted(references)]
            way = f"{', '.join(parts)} (version {about.get('version')})"
            earlier, first = seen.setdefault((data.task, metric), (index, way))
            if first != way:
                return _Clash(earlier, index, first, way)
    return None


def _prompts_clash(results: Sequence[ResultSet]) -> _Clash | None:
    """Return the first two files of a task that gave a model different prompts for one sample.

    A template that prints the day, or another tokenizer's template, does that.
    """
    tasks = [result.metadata.task for result in results]
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for index, result in enumerate(results):
        task = tasks[index]
        if tasks.count(task) < 2:
            continue
        asked = result.ruled.group_by("sample_id").aggregate([("prompt_digest", "min")])
        names, digests = (asked.column(name).to_pylist() for name in asked.column_names)
        for sample, digest in zip(names, digests, strict=True):
            if digest is None:
                continue
            earlier, first = seen.setdefault((task, sample), (index, digest))
            if first != digest:
                return _Clash(earlier, index, f"{first} for {sample}", digest)
    return None


def _baseline(name: str, parameters: Mapping[str, Any]) -> str:
    """Return the baseline's name with its parameters, where it has any."""
    return f"{name} {json.dumps(parameters, sort_keys=True)}" if parameters else name


def _fidelity(result: ResultSet) -> str:
    """Return the version of a file's grades, where one of them depends on it."""
    grades = set(result.ruled["fidelity"].unique().to_pylist())
    grades -= {"identical", None}
    return f"version {result.metadata.noise.get('fidelity_version', 1)}" if grades else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)
