"""One job, start to finish: load, warm up, measure, score, write.

Whatever happens, what has been measured stays: every finished pair of measurements goes to the
journal at once, a failed sample becomes a row with its error, and a second start measures only
what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from specbench import store
from specbench.audit.fidelity import Fidelity, judge, numeric_bound, worst
from specbench.calibration import find_calibrations
from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.law import Guidance, Law
from specbench.models.pair import ModelPair
from specbench.runner.about import file_metadata
from specbench.runner.measure import Arm, Bench, Measured, result_row
from specbench.runner.pictures import Album, check_drawing
from specbench.runner.progress import JobProgress
from specbench.runner.quality import Measure, build_measures, judge_pictures, wanted
from specbench.schema.build import instantiate, locate
from specbench.schema.config import MethodConfig, RunConfig, missing_draft
from specbench.schema.result import BASELINE, METHOD
from specbench.store import Journal, Key
from specbench.tasks.base import Sample, Task
from specbench.tasks.config import TaskConfig
from specbench.tasks.load import load_task
from specbench.tasks.prompting import for_tokenizer

_BOUND_SAMPLES = 2
_BOUND_TOKENS = 512
"""The first tokens of a picture, on which the shapes of forwards are compared."""


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


def run_job(config: RunConfig) -> JobResult:
    """Measure one method on one model and task.

    Args:
        config: The validated configuration.

    Raises:
        SpecbenchError: If something that the user can mend prevents the job.
        KeyboardInterrupt: If interrupted; the journal is intact and the job can be resumed.
    """
    if config.timing.threads is not None:
        torch.set_num_threads(config.timing.threads)
    task = load_task(TaskConfig.from_dict(config.task))
    store.check_writable(config.results_dir)
    arms = _arms(config)
    for arm in arms:
        arm.decoder.check(target_law(config))
    measures = build_measures(config)
    models = _load(config, arms)
    if config.pictures and models.image is not None:
        check_drawing(models.image, models.name)
    inputs = {arm.name: _prepare(arm, config, models) for arm in arms}
    task = for_tokenizer(task, models.tokenizer)
    metadata = file_metadata(config, task, models, target_law(config), inputs)
    stem = store.result_stem(config.method.name, config.model.name, task.name, metadata.job_id)
    finished = store.existing_results(config.results_dir, stem)
    if config.resume and finished:
        return _reused(finished[-1], stem, config, task, models, measures)
    with Journal.open(config.results_dir, stem, metadata, fresh=not config.resume) as journal:
        path = store.next_free_path(config.results_dir, stem)
        return _Job(config, task, arms, models, journal, measures, path).run()


def _reused(
    path: Path,
    stem: str,
    config: RunConfig,
    task: Task,
    models: ModelPair,
    measures: Sequence[Measure],
) -> JobResult:
    """Return a finished file, after adding the pictures and measures that it lacks."""
    result = store.read_parquet(path)
    identity = ["arm", "sample_id", "repeat", "process", "started_unix"]
    store.drop_written(config.results_dir, stem, result.rows[identity].to_dict("records"))
    album = _album(path, config, task, models)
    undrawn = result.rows["picture"].isna() & result.rows["error"].isna()
    undrawn &= result.rows["repeat"] == 0
    if album is not None and (undrawn.any() or wanted(measures, result.metadata)):
        rows = result.table.to_pylist(maps_as_pydicts="strict")
        store.write_parquet(path, *judge_pictures(album, measures, task, rows, result.metadata))
    return JobResult(path, _failures(result.rows), True)


def _album(path: Path, config: RunConfig, task: Task, models: ModelPair) -> Album | None:
    """Return where the pictures of a result file stand; None where there are none."""
    if models.image is None or not config.pictures:
        return None
    return Album(path.parent, path.stem, models.image, config.sampling.seed, task.samples)


class _Job:
    """The state of one running job."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        arms: Sequence[Arm],
        models: ModelPair,
        journal: Journal,
        measures: Sequence[Measure],
        path: Path,
    ) -> None:
        self._config = config
        self._task = task
        self._arms = arms
        self._models = models
        self._journal = journal
        self._measures = measures
        self._path = path
        self._album = _album(path, config, task, models)
        self._law = target_law(config)
        self._bench = Bench(
            models,
            task,
            self._law,
            config.sampling.seed,
            config.max_new_tokens,
            clock_for(models.target.device),
        )
        self._verdicts: dict[tuple[Any, ...], Fidelity] = {}
        self._scores: dict[tuple[Any, ...], tuple[float | None, str]] = {}
        self._seen = (-1, -1)

    def run(self) -> JobResult:
        """Measure what is missing, then write the result file."""
        repeats = self._config.timing.repeats
        todo = self._missing(repeats)
        total = len(self._task.samples) * repeats * len(self._arms)
        label = f"{self._config.method.name} on {self._task.name} with {self._models.name}"
        done = total - len(todo) * len(self._arms)
        with JobProgress(label, total, done, self._config.progress) as progress:
            if todo:
                progress.say("warming up")
                self._warm_up()
            for position, (sample, repeat, flip) in enumerate(todo):
                self._restore_state(sample, repeat)
                rows = self._measure(sample, repeat, flip, position)
                self._journal.append_many(rows)
                if self._album is not None and repeat == 0:
                    for row in rows:
                        if row["error"] is None:
                            self._album.keep(row)
                tokens = sum(row.get("new_tokens") or 0 for row in rows)
                nanoseconds = sum(row.get("total_ns") or 0 for row in rows)
                progress.advance(len(rows), tokens, nanoseconds / 1e9)
            rows = self._ordered(self._journal.rows)
            metadata = replace(self._journal.metadata, noise={"logit_bound": self._bound(rows)})
            if self._album is not None:
                progress.say("measuring the pictures")
                judged = judge_pictures(self._album, self._measures, self._task, rows, metadata)
                rows, metadata = judged
        store.write_parquet(self._path, rows, metadata)
        self._journal.remove()
        return JobResult(self._path, len({row["sample_id"] for row in rows if row.get("error")}))

    def _missing(self, repeats: int) -> list[tuple[Sample, int, bool]]:
        """Return the pairs that the journal lacks, with the order of their arms."""
        done = self._journal.done
        return [
            (sample, repeat, bool((index + repeat) % 2))
            for repeat in range(repeats)
            for index, sample in enumerate(self._task.samples)
            if not all(Key(arm.name, sample.id, repeat, 0) in done for arm in self._arms)
        ]

    def _warm_up(self) -> None:
        """Run a few samples unrecorded, then forget everything that they left behind."""
        for sample in self._task.samples[: self._config.timing.warmup]:
            self._bench.run(sample, self._arms, flip=False)
        for arm in self._arms:
            arm.decoder.reset()

    def _restore_state(self, sample: Sample, repeat: int) -> None:
        """Bring carried state to where it belongs before a measurement.

        By default nothing is carried: every sample starts afresh. With `carry_state` every
        repeat starts afresh and its samples follow each other; after an interruption, those
        that the journal holds are decoded once more, unrecorded.
        """
        carriers = [arm for arm in self._arms if arm.decoder.carries_state]
        if not self._config.carry_state:
            for arm in carriers:
                arm.decoder.reset()
            return
        index = self._task.samples.index(sample)
        if self._seen == (repeat, index):
            self._seen = (repeat, index + 1)
            return
        for arm in carriers:
            arm.decoder.reset()
        for earlier in self._task.samples[:index] if carriers else ():
            self._bench.run(earlier, self._arms, flip=False)
        self._seen = (repeat, index + 1)

    def _measure(
        self, sample: Sample, repeat: int, flip: bool, position: int
    ) -> list[dict[str, Any]]:
        """Measure a sample in every arm and return its rows, scored and judged."""
        measured = self._bench.run(sample, self._arms, flip)
        names = {"model": self._models.name, "task": self._task.name}
        rows = []
        for entry in measured:
            row = result_row(entry, sample, names, repeat, position)
            if entry.error is None:
                row |= self._scored(sample, entry)
                row |= self._judged(sample, measured[0], entry)
                if repeat == 0 and not self._config.carry_state:
                    row |= self._bench.offers(sample, entry)
            rows.append(row)
        return rows

    def _scored(self, sample: Sample, entry: Measured) -> dict[str, Any]:
        """Score an answer once, however often it is repeated."""
        scorer = self._task.scorer_of(sample)
        if not self._config.score or scorer is None:
            return {}
        key = (sample.id, *entry.texts)
        if key not in self._scores:
            score = scorer.score(sample, entry.texts)
            self._scores[key] = (score.value, score.detail)
        value, detail = self._scores[key]
        return {"score": value, "score_name": scorer.name, "score_detail": detail}

    def _judged(self, sample: Sample, baseline: Measured, entry: Measured) -> dict[str, Any]:
        """Compare a faithful method's greedy tokens with the baseline's."""
        if (
            not self._law.greedy
            or entry is baseline
            or not entry.arm.faithful
            or baseline.arm.name != BASELINE
            or baseline.error is not None
        ):
            return {}
        turns = [
            self._verdict(prompt, reference.tokens, output.tokens)
            for prompt, reference, output in zip(
                entry.prompts, baseline.generations, entry.generations, strict=True
            )
        ]
        verdict = worst(turns)
        return {
            "fidelity": str(verdict.grade),
            "first_divergence": verdict.position,
            "top2_gap": verdict.gap,
        }

    def _verdict(
        self, prompt: tuple[int, ...], reference: tuple[int, ...], output: tuple[int, ...]
    ) -> Fidelity:
        key = (prompt, reference, output)
        if key not in self._verdicts:
            bound = 0.0
            if reference != output:
                bound = numeric_bound(self._models, prompt, reference)
            self._verdicts[key] = judge(self._models, self._law, prompt, reference, output, bound)
        return self._verdicts[key]

    def _bound(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """Return how far the shape of a forward moves a logit on a few measured samples."""
        samples = {sample.id: sample for sample in self._task.samples}
        limit = None if self._models.image is None else _BOUND_TOKENS
        answers: dict[str, Sequence[int]] = {}
        for row in rows:
            if row.get("error") is None and len(answers) < _BOUND_SAMPLES:
                answers.setdefault(row["sample_id"], row["output_ids"][0][:limit])
        return max(
            (
                numeric_bound(self._models, self._bench.prompt(samples[name]), answer)
                for name, answer in answers.items()
            ),
            default=None,
        )

    def _ordered(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        index = {sample.id: place for place, sample in enumerate(self._task.samples)}
        return sorted(rows, key=lambda row: (row["repeat"], index[row["sample_id"]], row["arm"]))


def target_law(config: RunConfig) -> Law:
    """Return the target's law of a configuration."""
    sampling = config.sampling
    guidance = None
    if config.model.modality == "image":
        guidance = Guidance(
            1.0 if sampling.cfg_scale is None else sampling.cfg_scale,
            sampling.cfg_schedule,
            sampling.image_scale,
        )
    return Law(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        guidance=guidance,
        text_top_k=sampling.text_top_k,
    )


def _arms(config: RunConfig) -> list[Arm]:
    """Return the baseline, where there is one, and the method."""
    arms = []
    if config.baseline is not None:
        arms.append(_arm(BASELINE, config.baseline))
    arms.append(_arm(METHOD, config.method))
    return arms


def _arm(name: str, method: MethodConfig) -> Arm:
    decoder: Decoder = instantiate(method.decoder)
    return Arm(name, method.name, decoder, method.exactness in ("exact", "greedy"))


def _load(config: RunConfig, arms: Sequence[Arm]) -> ModelPair:
    """Load the models that the arms need.

    Raises:
        ConfigError: If an arm needs something that the model entry lacks.
    """
    drafted = [arm for arm in arms if "draft" in arm.decoder.needs]
    if drafted and config.model.draft is None:
        raise missing_draft(drafted[0].name, drafted[0].method, config.model.name)
    return load_models(config, frozenset(need for arm in arms for need in arm.decoder.needs))


def load_models(config: RunConfig, needs: frozenset[str]) -> ModelPair:
    """Load the models of a run by its entry's own loader, bound to the run's law.

    Args:
        config: The run.
        needs: What the methods need of the models.
    """
    load = locate(str(config.model.loader["_target_"]))
    options = {key: value for key, value in config.model.loader.items() if key != "_target_"}
    models: ModelPair = load(config.model, needs=needs, **options)
    models.bind(target_law(config))
    return models


def _prepare(arm: Arm, config: RunConfig, models: ModelPair) -> dict[str, str]:
    """Fit an arm to the loaded models; return digests of what it reads beside them.

    Raises:
        ConfigError: If a calibration or a datastore is missing or belongs to other models.
    """
    if arm.name == BASELINE and config.baseline is not None:
        config = replace(config, method=config.baseline)
    used = find_calibrations(config, arm.decoder, models, target_law(config))
    arm.decoder.prepare(models)
    return used | arm.decoder.inputs()


def _failures(rows: Any) -> int:
    failed = rows[rows["error"].notna()]
    return int(failed["sample_id"].nunique())
