"""One job, start to finish: load, warm up, measure, score, write.

Whatever happens, what has been measured stays: every finished pair of measurements goes to the
journal at once, a failed sample becomes a row with its error, and a second start measures only
what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from specbench import store
from specbench.clock import clock_for
from specbench.compare.baseline import PLAIN
from specbench.models.pair import ModelPair
from specbench.runner.about import checkpoint_notes, file_metadata, job_stem
from specbench.runner.baseline import measured_bandwidth, roofline
from specbench.runner.busy import Neighbours, Watch
from specbench.runner.code import other_code, software
from specbench.runner.device_state import tell, watch_of
from specbench.runner.finished import identities, taken_up
from specbench.runner.judging import Judge, count_answers, score_advice
from specbench.runner.measure import Bench, Place, result_row
from specbench.runner.notes import with_notes
from specbench.runner.pictures import Album, check_drawing
from specbench.runner.progress import JobProgress, Progress
from specbench.runner.quality import Measure, build_measures, is_first_pass, judge_pictures, wanted
from specbench.runner.setup import Job, Pair, load_for, prepare
from specbench.runner.work import announce, foretell, pace
from specbench.schema.config import RunConfig
from specbench.schema.result import SCHEMA_VERSION, FileMetadata
from specbench.store import Journal, ResultSet
from specbench.tasks.base import Sample

OpenProgress = Callable[[str, int, int], Progress]
"""Shows a job's progress, given its label, its measurements, and how many of them are done."""


class JobResult(NamedTuple):
    """How a job ended.

    Attributes:
        path: The result file.
        failed: Number of samples that failed in any arm.
        reused: Whether the file was there already and nothing was measured.
    """

    path: Path
    failed: int
    reused: bool = False


class ProcessStep(NamedTuple):
    """What one process of a job did.

    Attributes:
        result: How the job ended; None while later processes have to measure.
        pending: Those processes, in order.
    """

    result: JobResult | None
    pending: tuple[int, ...] = ()


def run_process(
    config: RunConfig,
    process: int = 0,
    begun: bool = False,
    open_progress: OpenProgress | None = None,
) -> ProcessStep:
    """Measure what one process of a job lacks; write the result file where no other lacks any.

    Args:
        config: The validated configuration.
        process: Index of this process in the job.
        begun: Whether an earlier process of the same call has begun the journal, so that even a
            fresh job goes on with it.
        open_progress: Shows the progress; None: on the terminal.

    Raises:
        SpecbenchError: If something that the user can mend prevents the job.
        KeyboardInterrupt: If interrupted; the journal is intact and the job can be resumed.
    """
    watch = Watch()
    if config.timing.threads is not None:
        torch.set_num_threads(config.timing.threads)
    job = Job.of(config)
    store.check_writable(config.results_dir)
    for arm in job.arms:
        arm.decoder.check(job.law)
    measures = build_measures(config)
    if process == 0 and not begun:
        announce(job)
    models = load_for(job)
    if config.pictures and models.image is not None:
        check_drawing(models.image, models.name)
    inputs = {arm.name: prepare(job, arm, models) for arm in job.arms}
    job = job.asked(models)
    metadata = file_metadata(job, models, inputs)
    stem = job_stem(job, metadata.job_id)
    finished = store.existing_results(config.results_dir, stem) if config.resume else []
    written = store.read_parquet(finished[-1]) if finished else None
    if written is not None:
        if not job.left({store.key_of(row) for row in identities(written)}):
            return ProcessStep(_reused(written, stem, job, models, measures))
        metadata = replace(written.metadata, schema_version=SCHEMA_VERSION)
    fresh = not config.resume and not begun
    with Journal.open(config.results_dir, stem, metadata, fresh=fresh) as journal:
        path = store.next_free_path(config.results_dir, stem)
        if written is not None and taken_up(written, journal):
            path = written.path
        running = _Running(job, models, journal, measures, path)
        return running.run(process, watch, open_progress or _on_terminal(config))


def _on_terminal(config: RunConfig) -> OpenProgress:
    return lambda label, total, done: JobProgress(label, total, done, config.progress)


def _reused(
    written: ResultSet, stem: str, job: Job, models: ModelPair, measures: Sequence[Measure]
) -> JobResult:
    """Return a finished file, after adding the pictures and measures that it lacks."""
    path = written.path
    store.drop_written(job.config.results_dir, stem, identities(written))
    album = _album(path, job, models)
    frame = written.rows
    undrawn = frame["picture"].isna() & frame["error"].isna()
    undrawn &= (frame["repeat"] == 0) & (frame["process"] == 0)
    if album is not None and (undrawn.any() or wanted(measures, written.metadata)):
        rows = written.table.to_pylist(maps_as_pydicts="strict")
        judged = judge_pictures(album, measures, job.task, rows, written.metadata)
        store.write_parquet(path, *judged)
    return JobResult(path, failed_samples(identities(written)), True)


def _album(path: Path, job: Job, models: ModelPair) -> Album | None:
    """Return where the pictures of a result file stand; None where there are none."""
    if models.image is None or not job.config.pictures:
        return None
    seed = job.config.sampling.seed
    return Album(path.parent, path.stem, models.image, seed, job.task.samples)


class _Running:
    """The state of one running job."""

    def __init__(
        self, job: Job, models: ModelPair, journal: Journal, measures: Sequence[Measure], path: Path
    ) -> None:
        self._job = job
        self._models = models
        self._journal = journal
        self._measures = measures
        self._path = path
        self._album = _album(path, job, models)
        device = models.target.device
        self._device = watch_of(device)
        self._judge = Judge(job, models)
        between = self._device.between if self._device is not None else None
        self._bench = Bench(job, models, clock_for(device), between)
        self._process = 0
        self._about: dict[str, Any] = {}
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._neighbours = Neighbours(self._threads)
        self._seen = (-1, -1)

    def run(self, process: int, watch: Watch, open_progress: OpenProgress) -> ProcessStep:
        """Measure what a process lacks, then write the result file if that was all."""
        self._process = process
        todo = self._missing(process)
        with open_progress(*self._extent()) as progress:
            if todo:
                self._look_around(watch, progress)
                self._measure_bandwidth(progress)
                progress.say("warming up")
                foretell(progress, self._left(), self._warm_up(), "the last warm-up")
                if self._device is not None:
                    tell(progress, self._device.begin())
                self._neighbours = Neighbours(self._threads)
            for position, pair in enumerate(todo):
                self._restore_state(pair.sample, pair.repeat)
                if self._device is not None and position == len(todo) - 1:
                    self._device.expect_end()
                rows = self._measure(pair, position)
                self._note_state(last=position == len(todo) - 1)
                self._journal.append_many(rows)
                if self._album is not None:
                    for row in rows:
                        if row["error"] is None and is_first_pass(row):
                            self._album.keep(row)
                tokens = sum(row.get("new_tokens") or 0 for row in rows)
                nanoseconds = sum(row.get("total_ns") or 0 for row in rows)
                progress.advance(len(rows), tokens, nanoseconds / 1e9)
                if position == 0 and not self._job.config.timing.warmup:
                    foretell(progress, self._left(), nanoseconds / 1e9, "the first sample")
            if todo and self._device is not None:
                tell(progress, self._device.news())
            every = range(process + 1, self._job.config.timing.processes)
            later = [k for k in every if self._missing(k)]
            if later:
                return ProcessStep(None, tuple(later))
            return ProcessStep(self._finish(progress))

    def _extent(self) -> tuple[str, int, int]:
        """Return the job's label, its number of measurements, and how many are done."""
        timing, arms = self._job.config.timing, len(self._job.arms)
        pairs = len(self._job.task.samples) * timing.repeats * timing.processes
        return self._job.label, pairs * arms, (pairs - self._left()) * arms

    def _left(self) -> int:
        return self._job.left(self._journal.done)

    def _look_around(self, watch: Watch, progress: Progress) -> None:
        """Record how busy the machine is; say so, and what is odd in the checkpoints."""
        rest, code = watch.rest(), software()
        self._about = {"started_unix": time.time(), "machine": rest.to_dict(), "software": code}
        self._journal.note(self._process, self._about)
        lines = [other_code(self._journal.metadata.provenance, code), rest.advice(self._threads)]
        if not self._process:
            lines += checkpoint_notes(self._models, self._job.law)
        for line in filter(None, lines):
            progress.warn(line)

    def _measure_bandwidth(self, progress: Progress) -> None:
        """Record how fast the device reads, where plain decoding is held against it."""
        text = self._job.config.model.modality == "text"
        if text and any(arm.method == PLAIN for arm in self._job.arms):
            progress.say("measuring the memory bandwidth")
            self._about["bandwidth"] = measured_bandwidth(self._models.target)
            self._journal.note(self._process, self._about)

    def _note_state(self, last: bool) -> None:
        """Let the journal know what processors and device have been like so far."""
        changed = self._device is not None and self._device.changed()
        if not (self._neighbours.look() or changed or last):
            return
        machine = {**self._about["machine"], "during": self._neighbours.state()}
        about = {**self._about, "machine": machine}
        if self._device is not None:
            about["device_state"] = self._device.state()
        self._journal.note(self._process, about)

    def _finish(self, progress: Progress) -> JobResult:
        """Write everything that was measured, in any process, into the result file."""
        rows = self._ordered(self._journal.rows)
        metadata = self._described(rows)
        for advice in score_advice(rows):
            progress.warn(advice)
        if self._album is not None:
            progress.say("measuring the pictures")
            judged = judge_pictures(self._album, self._measures, self._job.task, rows, metadata)
            rows, metadata = judged
        self._journal.check_place()
        store.write_parquet(self._path, rows, metadata)
        self._journal.remove()
        return JobResult(self._path, failed_samples(rows))

    def _described(self, rows: Sequence[Mapping[str, Any]]) -> FileMetadata:
        """Return the metadata with what only the end of a job knows."""
        begun = self._journal.metadata
        processes = len({row.get("process") or 0 for row in rows})
        config = dict(begun.config)
        config["timing"] = {**config.get("timing", {}), "processes": processes}
        provenance = with_notes(begun.provenance, self._journal.notes)
        provenance["answers"] = count_answers(rows)
        reached = roofline(rows, self._models.target, provenance["processes"])
        return replace(
            begun,
            timing={**begun.timing, "processes": processes},
            config=config,
            provenance=provenance | ({"roofline": reached} if reached else {}),
        )

    def _missing(self, process: int) -> list[Pair]:
        """Return the pairs of a process that the journal lacks."""
        return self._job.lacking(self._journal.done, process)

    def _warm_up(self) -> float | None:
        """Run a few samples unrecorded, then forget everything that they left behind.

        Returns:
            Seconds that the last of them took in all arms, or None where it failed.
        """
        seconds = None
        for sample in self._job.task.samples[: self._job.config.timing.warmup]:
            seconds = pace(self._bench.run(sample, self._job.arms, flip=False))
        for arm in self._job.arms:
            arm.decoder.reset()
        return seconds

    def _restore_state(self, sample: Sample, repeat: int) -> None:
        """Bring carried state to where it belongs before a measurement.

        By default nothing is carried: every sample starts afresh. With `carry_state` every
        repeat starts afresh and its samples follow each other; after an interruption, those
        that the journal holds are decoded once more, unrecorded.
        """
        carriers = [arm for arm in self._job.arms if arm.decoder.carries_state]
        if not self._job.config.carry_state:
            for arm in carriers:
                arm.decoder.reset()
            return
        index = self._job.task.samples.index(sample)
        if self._seen == (repeat, index):
            self._seen = (repeat, index + 1)
            return
        for arm in carriers:
            arm.decoder.reset()
        for earlier in self._job.task.samples[:index] if carriers else ():
            self._bench.run(earlier, self._job.arms, flip=False)
        self._seen = (repeat, index + 1)

    def _measure(self, pair: Pair, position: int) -> list[dict[str, Any]]:
        """Measure a sample in every arm and return its rows, scored and judged."""
        sample = pair.sample
        measured = self._bench.run(sample, self._job.arms, pair.flip)
        place = Place(pair.repeat, self._process, position)
        names = {"model": self._models.name, "task": self._job.task.name}
        rows = []
        for entry in measured:
            row = result_row(entry, sample, names, place, self._models.published)
            if entry.error is None:
                row |= self._judge.scored(sample, entry)
                row |= self._judge.judged(sample, measured[0], entry)
                if is_first_pass(row) and not self._job.config.carry_state:
                    row |= self._bench.offers(sample, entry)
            rows.append(row)
        return rows

    def _ordered(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        index = {sample.id: place for place, sample in enumerate(self._job.task.samples)}
        return sorted(
            rows,
            key=lambda row: (
                row.get("process") or 0,
                row["repeat"],
                index[row["sample_id"]],
                row["arm"],
            ),
        )


def failed_samples(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return how many samples failed in any measurement."""
    return len({row["sample_id"] for row in rows if isinstance(row.get("error"), str)})
