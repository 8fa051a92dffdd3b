"""Graphs are captured before a generation's clock starts, for as many tokens as it will hold."""

from __future__ import annotations

from specbench.clock import CpuClock
from specbench.models.pair import ModelPair
from specbench.runner.measure import Bench
from specbench.runner.setup import Job, load_for
from tests.unit.runner import toy


def test_models_are_settled_before_every_generation_and_outside_its_clock(tmp_path, monkeypatch):
    seen = []

    class Clock(CpuClock):
        def start(self):
            seen.append("start")
            super().start()

        def stop(self):
            seen.append("stop")
            super().stop()

    monkeypatch.setattr(ModelPair, "settle", lambda self, tokens=0: seen.append(tokens))
    config = toy.config(tmp_path, turns=(("abcde", "ab"),))
    job = Job.of(config)
    bench = Bench(job, load_for(job), Clock())
    measured = bench.run(job.task.samples[0], job.arms, flip=False)
    assert all(entry.error is None for entry in measured)
    prompts = [len(measured[0].prompts[0]), len(measured[0].prompts[1])]
    assert seen == [step for turn in prompts for step in 2 * [turn + 12, "start", "stop"]], (
        "two arms in each of two turns"
    )
