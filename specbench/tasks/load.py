"""From a task's configuration to a task: read, check everything, order, cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from specbench.errors import ConfigError, TaskError, did_you_mean
from specbench.schema.build import instantiate
from specbench.schema.task import TaskConfig
from specbench.tasks.base import Sample, Scorer, Task, task_digest
from specbench.tasks.formats import FORMATS, ORDERS, SHOTS, SPLITS, Row, RowError
from specbench.tasks.scorers import ByCategory
from specbench.tasks.sources import Rows, broken_row, read_rows


def load_task(config: TaskConfig, limit: int | None = None) -> Task:
    """Return a task with its samples.

    Args:
        config: The task's configuration.
        limit: Number of samples; None takes the configuration's own.

    Raises:
        TaskError: If the data cannot be had or any of it is broken.
        ConfigError: If the configuration asks for what the task does not have.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"'task.limit' cannot be {limit}", "it must be at least 1 or null")
    loaded = _load_mix(config) if config.source.kind == "mix" else _load_one(config)
    samples, scorer, source = loaded
    digest = task_digest(
        config.version, config.prompt, config.stop, config.completion_stop, samples
    )
    kept = _pictures(_of_category(samples, config.category), config.images)
    kept = itertools.islice(kept, limit or config.limit)
    return Task(
        name=config.name,
        title=config.title,
        version=config.version,
        samples=tuple(kept),
        digest=digest,
        prompt=config.prompt,
        stop=config.stop,
        completion_stop=config.completion_stop,
        max_new_tokens=config.max_new_tokens,
        scorer=scorer,
        licence=config.licence,
        source=source,
    )


def _load_one(config: TaskConfig) -> tuple[list[Sample], Scorer | None, str]:
    read = read_rows(config.source, config.path)
    to_sample = FORMATS[config.source.format]
    samples = []
    places: dict[str, str] = {}
    for index, (place, row) in enumerate(_split(read, config.source.format)):
        try:
            sample = to_sample(row, index, config.name)
        except RowError as error:
            raise broken_row(read.origin, place, str(error)) from error
        if sample.id in places:
            why = f"the id '{sample.id}' was used at {places[sample.id]} already"
            raise broken_row(read.origin, place, why)
        places[sample.id] = place
        samples.append(sample)
    if not samples:
        raise TaskError(f"{read.origin} holds no sample", "a task needs at least one")
    if config.source.format in ORDERS:
        samples.sort(key=ORDERS[config.source.format])
    shots = _shots(config)
    if shots:
        samples = [replace(sample, few_shot=shots) for sample in samples]
    scorer: Scorer | None = None if config.scorer is None else instantiate(config.scorer)
    return samples, scorer, read.origin


def _split(read: Rows, row_format: str) -> Iterator[tuple[str, Row]]:
    """Yield each row with its place; where the official file is one object, each of its parts."""
    split = SPLITS.get(row_format)
    if split is None:
        yield from read.rows
        return
    for place, row in read.rows:
        try:
            parts = split(row)
        except RowError as error:
            raise broken_row(read.origin, place, str(error)) from error
        yield from ((place, part) for part in parts)


def _pictures(samples: Sequence[Sample], images: int) -> Iterator[Sample]:
    """Yield `images` pictures of each prompt: first one of every prompt, then the second ones.

    The first keeps the prompt's id, the others are "id#1", "id#2" and so on; their random
    streams differ because streams are keyed by sample id.
    """
    for picture in range(images):
        for sample in samples:
            yield replace(sample, id=f"{sample.id}#{picture}") if picture else sample


def _shots(config: TaskConfig) -> tuple[tuple[str, str], ...]:
    """Return the first `config.shots` worked examples, in the order of their source."""
    if not config.shots:
        return ()
    to_shot = SHOTS.get(config.source.format)
    if to_shot is None or (config.shots_path is None and config.source.shots_split is None):
        raise ConfigError(
            f"'task.shots' must be 0 for the task '{config.name}'",
            "it has no worked examples",
            "Remove task.shots.",
        )
    read = read_rows(config.source, config.shots_path, config.source.shots_split)
    if len(read.rows) < config.shots:
        raise TaskError(
            f"{read.origin} holds {len(read.rows)} worked examples",
            f"task.shots={config.shots} asks for more",
            f"Set task.shots={len(read.rows)} or less.",
        )
    shots = []
    for place, row in read.rows[: config.shots]:
        try:
            shots.append(to_shot(row))
        except RowError as error:
            raise broken_row(read.origin, place, str(error)) from error
    return tuple(shots)


def _load_mix(config: TaskConfig) -> tuple[list[Sample], Scorer | None, str]:
    """Interleave the samples of several tasks, one of each in turn."""
    if config.path is not None or config.shots:
        raise ConfigError(
            f"'task.path' and 'task.shots' do not apply to '{config.name}'",
            f"it is a mix of {', '.join(config.source.tasks)}",
            "Choose one of those tasks instead.",
        )
    columns, scorers, sources = [], {}, []
    for name in config.source.tasks:
        part = TaskConfig.named(name)
        if part.source.kind == "mix":
            raise ConfigError(f"The mix '{config.name}' holds the mix '{name}'")
        samples, scorer, source = _load_one(part)
        columns.append(samples)
        scorers.update({sample.category: scorer for sample in samples})
        sources.append(source)
    rows = itertools.zip_longest(*columns)
    mixed = [sample for row in rows for sample in row if sample is not None]
    return mixed, ByCategory(scorers), ", ".join(sources)


def _of_category(samples: Sequence[Sample], wanted: Sequence[str]) -> list[Sample]:
    known = {name for sample in samples for name in (sample.category, sample.group)}
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(
                f"The task has no category '{name}'" + (f". {near}" if near else ""),
                f"categories: {', '.join(sorted(known))}",
                "Correct task.category.",
            )
    if not wanted:
        return list(samples)
    return [sample for sample in samples if {sample.category, sample.group} & set(wanted)]
