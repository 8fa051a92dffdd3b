"""One job, start to finish: order, resume, failure, state, and what the file says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest

from specbench import store
from specbench.compare import compare
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.errors import ConfigError
from specbench.models.pair import About
from specbench.report import words
from specbench.runner import run_job
from specbench.runner.measure import Bench
from specbench.schema.config import SamplingConfig, TimingConfig
from specbench.store import Journal
from tests.unit.runner import toy


def rows_of(result):
    found = store.read_parquet(result.path)
    return found.rows.assign(**found.outputs[["output_ids", "output_text"]])


def test_every_arm_sample_and_repeat_is_a_row(tmp_path):
    result = run_job(toy.config(tmp_path))
    rows = rows_of(result)
    assert len(rows) == 2 * 4 * 2 and result.failed == 0
    assert set(rows["arm"]) == {"baseline", "method"}
    assert not (tmp_path / "results" / ".journal").exists()
    for _, row in rows.iterrows():
        emitted = sum(r["emitted"] for r in row["rounds"]) if "rounds" in row else None
        assert emitted is None or emitted == row["new_tokens"]
        assert row["total_ns"] == row["prefill_ns"] + row["decode_ns"]
        assert row["draft_ns"] + row["target_ns"] + row["host_ns"] <= row["total_ns"]


def test_greedy_method_is_identical_to_the_baseline(tmp_path):
    rows = rows_of(run_job(toy.config(tmp_path)))
    method = rows[rows["arm"] == "method"]
    assert set(method["fidelity"]) == {"identical"}
    assert rows[rows["arm"] == "baseline"]["fidelity"].isna().all()


def test_sampled_runs_repeat_the_same_tokens_and_have_no_fidelity(tmp_path):
    config = toy.config(tmp_path, sampling=SamplingConfig(temperature=1.0, seed=3))
    rows = rows_of(run_job(config))
    assert rows["fidelity"].isna().all()
    for _, group in rows.groupby(["arm", "sample_id"]):
        outputs = {tuple(map(tuple, ids)) for ids in group["output_ids"]}
        assert len(outputs) == 1


def test_arms_take_turns_abba(tmp_path, monkeypatch):
    calls = []
    original = Bench._turn

    def spy(self, sample, turn, history, entry):
        calls.append((sample.id, entry.arm.name))
        return original(self, sample, turn, history, entry)

    monkeypatch.setattr(Bench, "_turn", spy)
    run_job(toy.config(tmp_path, timing=TimingConfig(repeats=2, warmup=0)))
    for sample in ("toy/0", "toy/1"):
        order = [arm for name, arm in calls if name == sample]
        assert order in (
            ["baseline", "method", "method", "baseline"],
            ["method", "baseline", "baseline", "method"],
        )


def test_a_conversation_continues_the_baselines_history(tmp_path, monkeypatch):
    histories = []
    original = Bench._turn

    def spy(self, sample, turn, history, entry):
        histories.append((turn, entry.arm.name, tuple(history)))
        return original(self, sample, turn, history, entry)

    monkeypatch.setattr(Bench, "_turn", spy)
    config = toy.config(tmp_path, turns=[("ab", "cd"), ("ba", "dc")])
    config = type(config)(**{**config.__dict__, "sampling": SamplingConfig(temperature=1.0)})
    rows = rows_of(run_job(config))
    second = [entry for entry in histories if entry[0] == 1]
    assert second and all(len(history) == 1 for _, _, history in second)
    baseline = rows[(rows["arm"] == "baseline") & (rows["repeat"] == 0)]
    answers = {texts[0] for texts in baseline["output_text"]}
    assert {history[0][1] for _, _, history in second} == answers


def test_a_finished_job_is_not_measured_again(tmp_path):
    config = toy.config(tmp_path)
    first = run_job(config)
    again = run_job(config)
    assert again.path == first.path and again.reused
    fresh = run_job(type(config)(**{**config.__dict__, "resume": False}))
    assert fresh.path != first.path and not fresh.reused
    assert first.path.exists()


def any_checkpoint(folder, **changes):
    """Return a job of the entry that runs any checkpoint."""
    base = toy.config(folder, **changes)
    return replace(base, model=replace(base.model, name="hf", target="ORG/NAME"))


def test_the_file_is_called_by_the_checkpoint_and_an_earlier_one_is_found(tmp_path):
    result = run_job(any_checkpoint(tmp_path))
    assert "__NAME__" in result.path.name
    earlier = result.path.rename(result.path.with_name(result.path.name.replace("NAME", "hf")))
    again = run_job(any_checkpoint(tmp_path))
    assert again.reused and again.path == earlier


def test_what_a_run_does_not_take_over_from_a_checkpoint_is_said_and_recorded(
    tmp_path, monkeypatch, capsys
):
    about = About("auto: small", {"repetition_penalty": 1.3}, ("A weight is left over.",))
    monkeypatch.setattr(toy, "load", with_about(toy.load, about))
    result = run_job(toy.config(tmp_path, progress=True))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("repetition_penalty=1.3") == 2 and said.count("A weight is left over.") == 1
    recorded = store.read_parquet(result.path).metadata.provenance["checkpoint"]
    assert recorded["generation_defaults"] == {"repetition_penalty": 1.3}
    assert recorded["notes"][0] == "A weight is left over." and len(recorded["notes"]) == 2
    (line,) = [words.heading(compare([store.read_parquet(result.path)]))]
    assert "float64 (auto: small)" in line


def with_about(load, about):
    def loaded(config, needs):
        pair = load(config, needs)
        pair.about = about
        return pair

    return loaded


class Interrupting(Autoregressive):
    """Stops the program in the middle of a measurement."""

    calls = 0

    def generate(self, models, request, clock):
        type(self).calls += 1
        if type(self).calls == 9:
            raise KeyboardInterrupt
        return super().generate(models, request, clock)


def test_resume_redoes_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(Interrupting, "calls", 0)
    node = {"_target_": "tests.unit.runner.test_job.Interrupting"}
    config = toy.config(
        tmp_path,
        method=toy.method("interrupting", node),
        timing=TimingConfig(repeats=3, warmup=0),
    )
    with pytest.raises(KeyboardInterrupt):
        run_job(config)
    assert not list((tmp_path / "results").glob("*.parquet"))
    journal = next((tmp_path / "results" / ".journal").glob("*.jsonl"))
    assert len(journal.read_text().splitlines()) == 1 + 8
    measured = Interrupting.calls
    rows = rows_of(run_job(config))
    assert len(rows) == 2 * 4 * 3
    assert Interrupting.calls - measured == 4
    assert not rows.duplicated(["arm", "sample_id", "repeat"]).any()


class Failing(Autoregressive):
    """Fails on prompts of one length."""

    def generate(self, models, request, clock):
        if len(request.prompt) == 2:
            raise RuntimeError("out of\nmemory")
        return super().generate(models, request, clock)


def test_a_failed_sample_is_a_row_with_its_error(tmp_path):
    node = {"_target_": "tests.unit.runner.test_job.Failing"}
    result = run_job(toy.config(tmp_path, method=toy.method("failing", node)))
    rows = rows_of(result)
    failed = rows[rows["error"].notna()]
    assert result.failed == 1
    assert set(failed["sample_id"]) == {"toy/3"} and set(failed["arm"]) == {"method"}
    assert set(failed["error"]) == {"RuntimeError: out of memory"}
    assert failed["new_tokens"].isna().all()


class Remembering(Autoregressive):
    """Carries state from request to request; warm-up must not prime it."""

    carries_state = True
    seen = []

    def __init__(self):
        self._known = 0

    def reset(self):
        self._known = 0

    def generate(self, models, request, clock):
        type(self).seen.append(self._known)
        self._known += 1
        return super().generate(models, request, clock)


def test_warm_up_and_earlier_samples_prime_no_state(tmp_path, monkeypatch):
    monkeypatch.setattr(Remembering, "seen", [])
    node = {"_target_": "tests.unit.runner.test_job.Remembering"}
    run_job(
        toy.config(
            tmp_path,
            method=toy.method("remembering", node),
            timing=TimingConfig(repeats=1, warmup=2),
        )
    )
    assert Remembering.seen == [0, 1] + [0] * 4


def test_without_a_baseline_only_the_method_runs(tmp_path):
    result = run_job(toy.config(tmp_path, baseline=None))
    rows = rows_of(result)
    assert set(rows["arm"]) == {"method"} and len(rows) == 8
    assert store.read_parquet(result.path).metadata.timing["history"] == "own"


def test_a_missing_draft_is_refused_by_name(tmp_path):
    from dataclasses import replace

    config = toy.config(tmp_path)
    with pytest.raises(ConfigError, match="'token_sd' needs a draft"):
        run_job(replace(config, model=replace(config.model, draft=None)))


def test_the_file_explains_itself(tmp_path):
    metadata = store.read_parquet(run_job(toy.config(tmp_path)).path).metadata
    assert metadata.law == "greedy" and metadata.engine == "table"
    assert metadata.baseline is not None and metadata.baseline.name == "ar"
    for key in ("python", "packages", "cpu", "threads", "command", "models", "git"):
        assert key in metadata.provenance
    assert metadata.noise == {"fidelity_version": 2}


def test_the_folder_of_a_sweep_is_not_part_of_the_command():
    from specbench.runner.provenance import command_line

    words = ["specbench", "run", 'hydra.sweep.dir="/home/me/results/.sweep/1"', "token=abc"]
    assert command_line(words) == ["specbench", "run", "token=***"]
    assert command_line(["specbench run", "-m"]) == ["specbench", "run", "-m"]
    for program in ("/opt/venv/bin/specbench", "/src/specbench/__main__.py"):
        assert command_line([program, "run"]) == ["specbench", "run"]


def tree_method(verifier):
    decoder = {
        **toy.TOKEN_SD,
        "topology": {"_target_": "tests.unit.decoding.test_growth.Pairs"},
        "verifier": verifier,
    }
    return toy.method("tree", decoder, ["draft"])


WALK = {
    "_target_": "specbench.decoding.verifiers.tree_walk.TreeWalk",
    "rule": {
        "_target_": "specbench.decoding.verifiers.rrs.RecursiveRejection",
        "replacement": False,
    },
}


def test_a_run_with_several_drafts_knows_the_acceptance_that_it_could_have_reached(tmp_path):
    sampling = SamplingConfig(temperature=1.0)
    rows = rows_of(run_job(toy.config(tmp_path, method=tree_method(WALK), sampling=sampling)))
    first = rows[(rows["arm"] == "method") & (rows["repeat"] == 0)]
    assert (first["offer_visits"] >= first["offer_accepted"]).all()
    assert 0 < first["offer_optimal"].sum() <= first["offer_visits"].sum()
    others = rows.drop(first.index)
    assert others["offer_visits"].isna().all()


def test_greedy_runs_and_chains_have_no_ceiling(tmp_path):
    rows = rows_of(run_job(toy.config(tmp_path / "greedy", method=tree_method(WALK))))
    assert rows["offer_visits"].isna().all()
    sampling = SamplingConfig(temperature=1.0)
    rows = rows_of(run_job(toy.config(tmp_path / "chain", sampling=sampling)))
    assert rows["offer_visits"].isna().all()


class Learner(Autoregressive):
    """Plain decoding that counts the requests it has seen since its last reset."""

    carries_state = True
    seen: list[int] = []

    def __init__(self):
        self.reset()

    def reset(self):
        self._count = 0

    def generate(self, models, request, clock):
        type(self).seen.append(self._count)
        self._count += 1
        return super().generate(models, request, clock)


LEARNER = {"_target_": f"{__name__}.Learner"}


def learned(config):
    Learner.seen = []
    run_job(config)
    return Learner.seen


def test_what_a_method_learns_is_forgotten_before_every_sample(tmp_path):
    seen = learned(toy.config(tmp_path, method=toy.method("learner", LEARNER)))
    assert seen == [0] + [0] * 8


def test_carried_state_grows_over_a_repeat_and_never_out_of_it(tmp_path):
    learner = toy.method("learner", LEARNER)
    seen = learned(toy.config(tmp_path, method=learner, carry_state=True))
    assert seen == [0] + [0, 1, 2, 3] * 2


def test_a_resumed_job_restores_carried_state(tmp_path, monkeypatch):
    config = toy.config(tmp_path, method=toy.method("learner", LEARNER), carry_state=True)
    original, calls = Journal.append_many, []

    def interrupt(self, rows):
        original(self, rows)
        calls.append(rows)
        if len(calls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append_many", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(config)
    monkeypatch.undo()
    warm_up, replayed = [0], [0, 1]
    assert learned(config) == warm_up + replayed + [2, 3]


SLOW_JOB = """
import sys, time
from pathlib import Path
from specbench.runner import run_job
from specbench.runner.measure import Bench
from tests.unit.runner import toy
original = Bench.run
def slowly(self, *arguments, **options):
    time.sleep(0.05)
    return original(self, *arguments, **options)
Bench.run = slowly
run_job(toy.config(Path(sys.argv[1])))
"""


def test_kill_minus_nine_loses_nothing_measured(tmp_path, repo_root):
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    process = subprocess.Popen([sys.executable, "-c", SLOW_JOB, str(tmp_path)], env=environment)
    folder = tmp_path / "results" / ".journal"
    deadline = time.monotonic() + 60
    lines = 0
    while lines < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
        lines = sum(path.read_text().count("\n") for path in folder.glob("*.jsonl"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lines >= 4, "the job did not get far enough"
    before = next(folder.glob("*.jsonl")).read_text().splitlines()[1:]
    rows = rows_of(run_job(toy.config(tmp_path)))
    assert len(rows) == 2 * 4 * 2
    import json

    kept = [row for line in before for row in json.loads(line)["rows"]]
    key = ["arm", "sample_id", "repeat"]
    joined = pd.DataFrame(kept).merge(rows, on=key, suffixes=("_before", ""))
    assert len(joined) == len(kept)
    assert (joined["started_unix_before"] == joined["started_unix"]).all()


class Reader(Autoregressive):
    """Plain decoding beside a file that it reads."""

    text = "first"

    def inputs(self):
        return {"file": self.text}


def test_another_content_of_what_a_method_reads_is_another_job(tmp_path, monkeypatch):
    config = toy.config(tmp_path, method=toy.method("reader", {"_target_": f"{__name__}.Reader"}))
    first = run_job(config)
    assert run_job(config).reused
    monkeypatch.setattr(Reader, "text", "second")
    second = run_job(config)
    assert not second.reused and second.path != first.path
    inputs = store.read_parquet(second.path).metadata.provenance["inputs"]
    assert inputs == {"baseline": {}, "method": {"file": "second"}}
