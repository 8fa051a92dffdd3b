"""Graphs are captured before a generation's clock starts, for as many tokens as it will hold."""

from __future__ import annotations

from specbench.clock import CpuClock
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.runner.measure import Bench
from specbench.runner.setup import build_arms, load_for
from specbench.tasks.config import TaskConfig
from specbench.tasks.load import load_task
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
    task = load_task(TaskConfig.from_dict(config.task))
    arms = build_arms(config)
    bench = Bench(load_for(config, arms), task, Law(temperature=0.0), 0, None, Clock())
    measured = bench.run(task.samples[0], arms, flip=False)
    assert all(entry.error is None for entry in measured)
    prompts = [len(measured[0].prompts[0]), len(measured[0].prompts[1])]
    assert seen == [step for turn in prompts for step in 2 * [turn + 12, "start", "stop"]], (
        "two arms in each of two turns"
    )
