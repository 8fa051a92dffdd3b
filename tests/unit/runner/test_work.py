"""How much a job has to do, and how long that takes, in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from specbench.runner import run_job
from specbench.runner.setup import Job
from specbench.runner.work import Work, foretell, lasting, pace
from specbench.schema.config import TimingConfig
from tests.unit.runner import toy_image
from tests.unit.runner.toy import config


def test_geneval_on_lumina_is_days_of_pictures_and_says_so():
    """553 prompts, four pictures of each, two arms, three repeats."""
    work = Work(samples=553 * 4, turns=553 * 4, arms=2, passes=3, warmup=4)
    assert work.generations == 13272
    assert work.describe(pictures=True) == (
        "13,272 pictures (2,212 samples, 2 arms, 3 repeats), and 4 to warm up"
    )


def test_every_turn_of_a_conversation_is_a_generation():
    samples = [SimpleNamespace(turns=("a", "b")), SimpleNamespace(turns=("c",))]
    timing = SimpleNamespace(repeats=3, processes=2, warmup=1)
    task = SimpleNamespace(samples=samples)
    config = SimpleNamespace(timing=timing)
    work = Work.of(SimpleNamespace(config=config, arms=(1, 2), task=task))
    assert work == Work(samples=2, turns=3, arms=2, passes=6, warmup=8)
    words = "36 generations (2 samples of 3 turns, 2 arms, 6 repeats), and 8 to warm up"
    assert work.describe(pictures=False) == words
    assert Work(1, 1, 1, 1, 0).describe(pictures=True) == "1 picture (1 sample, 1 arm, 1 repeat)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (42, "42 s"),
        (150, "2.5 min"),
        (5400, "90 min"),
        (4 * 3600, "4.0 h"),
        (13272 / 2 * 126, "9.7 days"),
        (40 * 86400, "40 days"),
    ],
)
def test_lengths_are_as_rough_as_estimates(seconds, words):
    assert lasting(seconds) == words


def test_the_pace_is_that_of_all_arms_and_a_failure_has_none():
    generation = SimpleNamespace(total_ns=1_500_000_000)
    good = SimpleNamespace(error=None, generations=[generation, generation])
    bad = SimpleNamespace(error="RuntimeError: boom", generations=[])
    assert pace([good, good]) == 6.0
    assert pace([good, bad]) is None
    said = []
    foretell(SimpleNamespace(note=said.append), 10, 6.0, "the last warm-up")
    foretell(SimpleNamespace(note=said.append), 10, None, "the last warm-up")
    foretell(SimpleNamespace(note=said.append), 0, 6.0, "the last warm-up")
    assert said == ["about 60 s to go, at the pace of the last warm-up"]


@pytest.mark.parametrize(
    ("make", "words"), [(config, "generations"), (toy_image.config, "pictures")]
)
def test_a_run_says_how_much_it_will_do_before_it_loads_anything(
    tmp_path, capsys, monkeypatch, make, words
):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("specbench.runner.job.load_for", stop)
        for progress, said in ((False, 0), (True, 1)):
            with pytest.raises(KeyboardInterrupt):
                run_job(replace(make(tmp_path), progress=progress))
            assert capsys.readouterr().err.count(f" {words} (4 samples, 2 arms, 2 repeats)") == said


def test_a_checkpoint_is_called_by_its_own_name(tmp_path):
    made = config(tmp_path)
    model = replace(made.model, name="hf", target="/models/my-8b/")
    assert Job.of(replace(made, model=model)).label == "token_sd on toy with my-8b"


def test_a_run_says_how_long_it_takes_after_the_warm_up_or_the_first_sample(tmp_path, capsys):
    for warmup, where in ((1, "the last warm-up"), (0, "the first sample")):
        timing = TimingConfig(repeats=2, warmup=warmup)
        made = config(tmp_path / str(warmup), progress=True, timing=timing)
        run_job(made)
        assert f"to go, at the pace of {where}\n" in capsys.readouterr().err
        run_job(made)
        assert "to go" not in capsys.readouterr().err
