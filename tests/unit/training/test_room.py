"""One small training from command words to a checkpoint that the ordinary loader reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from specbench.clock import clock_for
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request, StopTokens
from specbench.errors import ConfigError, ModelError, ResultsError, TrainingError
from specbench.hosting import HostRequest, compose_training
from specbench.law import Law
from specbench.models import checkpoint as checkpoints
from specbench.models.load import load_pair
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.model import ModelConfig
from specbench.schema.recipe import TrainConfig
from specbench.training import room
from specbench.training.answers import write_answers
from specbench.training.learners.draft_model import DraftModel

SMALL = (
    "recipe.steps=6",
    "recipe.save_every=2",
    "recipe.check_every=3",
    "recipe.batch_tokens=256",
    "recipe.data.prompts=12",
    "recipe.data.held_out=4",
    "recipe.data.rows=4",
    "recipe.data.max_new_tokens=12",
    "recipe.learner.refresh=2",
    "task.source.count=24",
    "progress=false",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def one_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(cache))


def config(output: Path, *words: str) -> TrainConfig:
    return compose_training(HostRequest((*SMALL, f"output={output}", *words)))


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["SPECBENCH_CACHE"] = str(cache)
    return room.train(config(tmp_path_factory.mktemp("trained")))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def test_what_is_trained_drafts_for_the_target(trained: Path) -> None:
    entry = {**catalog.load("model", "tiny_text"), "draft": str(trained)}
    models = load_pair(ModelConfig.from_dict(entry))
    assert models.draft is not None and models.draft.vocab_size == models.target.vocab_size
    about = models.provenance["draft"]["training"]
    assert about["recipe"] == "distillspec" and about["steps"] == 6 and about["seed"] == 0
    assert about["target"]["digest"] == models.provenance["target"]["digest"]
    assert about["data"]["digest"].startswith("sha256:") and about["data"]["documents"] >= 12
    assert about["tokens"] > 0 and about["seconds"] > 0 and about["loss"] > 0
    assert "history" not in about
    plain = checkpoints.find("embedded:tiny_text_draft", None)
    assert about["began_as"]["digest"] == checkpoints.digest(plain)
    assert "training" not in checkpoints.describe(plain)
    history = json.loads((trained / "training.json").read_text())["history"]
    assert [check["step"] for check in history["checks"]] == [0, 3, 6]
    assert not same(trained, Path(plain.location))
    assert weights(trained)["lm_head.weight"].dtype == torch.float16


def test_the_seed_repeats_the_weights_and_another_does_not(trained: Path, tmp_path: Path) -> None:
    assert same(trained, room.train(config(tmp_path / "again")))
    assert not same(trained, room.train(config(tmp_path / "other", "recipe.optimizer.rate=0.002")))


def test_streamed_states_are_those_that_are_kept(trained: Path, tmp_path: Path) -> None:
    streamed = weights(room.train(config(tmp_path, "recipe.data.taps=stream")))
    for name, kept in weights(trained).items():
        torch.testing.assert_close(streamed[name], kept, atol=5e-3, rtol=0)


def test_a_finished_training_is_not_done_again(trained: Path) -> None:
    before = (trained / "training.json").stat().st_mtime_ns
    room.train(config(trained))
    assert (trained / "training.json").stat().st_mtime_ns == before


def test_another_configuration_is_not_gone_on_with(trained: Path) -> None:
    with pytest.raises(ConfigError, match="training of another configuration"):
        room.train(config(trained, "seed=1"))


KILLED = """
import os, signal
from specbench.training.learners.draft_model import DraftModel

class Killed(DraftModel):
    def loss(self, step, batch, source):
        if os.environ.get("KILL_AT") == str(step):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(step, batch, source)
"""


def test_a_killed_training_goes_on_to_the_very_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    output = tmp_path / "out"
    words = [*SMALL, f"output={output}", "recipe.learner._target_=killed.Killed"]
    paths = os.pathsep.join([str(tmp_path), str(Path(room.__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, "-m", "specbench", "train", *words],
        env={**os.environ, "KILL_AT": "5", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert json.loads((output / "training.json").read_text())["steps"] == 4
    assert not same(trained, output)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        room.train(config(output, "recipe.learner._target_=killed.Killed"))
        whole = room.train(config(tmp_path / "whole", "recipe.learner._target_=killed.Killed"))
    finally:
        torch.set_num_threads(threads)
    assert same(output, whole)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_state(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DraftModel.loss

    def broken(self: DraftModel, step: int, batch: object, source: object) -> object:
        found = real(self, step, batch, source)  # type: ignore[arg-type]
        return found._replace(value=found.value * float("nan")) if step == 4 else found

    monkeypatch.setattr(DraftModel, "loss", broken)
    with pytest.raises(TrainingError, match="The loss is nan at step 5") as told:
        room.train(config(tmp_path))
    assert told.value.why == "the state after step 4 is kept"
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 4
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_a_full_disk_ends_the_corpus_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    real, written = Path.write_bytes, []

    def nearly_full(self: Path, data: bytes) -> int:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(self)
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", nearly_full)
    with pytest.raises(ResultsError, match="The disk is full"):
        room.train(config(tmp_path / "out"))
    kept = sorted(tmp_path.rglob("*.safetensors"))
    assert len(kept) == 2
    monkeypatch.setattr(Path, "write_bytes", real)
    before = [file.stat().st_mtime_ns for file in kept]
    room.train(config(tmp_path / "out"))
    assert [file.stat().st_mtime_ns for file in kept] == before


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a multiple of recipe.learner.refresh"):
        room.train(config(tmp_path, "recipe.save_every=3"))
    with pytest.raises(ModelError, match="cannot take states in the place of tokens"):
        room.train(config(tmp_path, "model.engine=transformers"))
    with pytest.raises(ModelError, match="cannot draft for"):
        room.train(config(tmp_path, "model.draft=embedded:tiny_image_draft"))


def test_adaspec_asks_for_its_reference_and_learns_beside_it(trained: Path, tmp_path: Path) -> None:
    words = ("recipe=adaspec", "recipe.learner.refresh=1")
    with pytest.raises(ConfigError, match="reference' is missing"):
        room.train(config(tmp_path, *words))
    before = (trained / "model.safetensors").read_bytes()
    out = room.train(config(tmp_path, *words, f"recipe.learner.reference={trained}"))
    about = json.loads((out / "training.json").read_text())
    found = checkpoints.digest(checkpoints.find(str(trained), None))
    assert about["reference"]["digest"] == found
    assert (trained / "model.safetensors").read_bytes() == before
    assert not same(out, trained)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_plain_decoding(temperature: float) -> None:
    models = load_pair(ModelConfig.from_dict(catalog.load("model", "tiny_text")), needs=frozenset())
    tokenizer = models.tokenizer
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in ("Write a function that adds two numbers.", "Where is it?", "Tell me a story.")
    ]
    streams = [Streams(3, f"request {index}") for index in range(3)]
    law = Law(temperature=temperature)
    together = write_answers(models.target, prompts, streams, law, models.stop_ids, 24)
    for prompt, stream, answer in zip(prompts, streams, together, strict=True):
        request = Request(tuple(prompt), 24, law, stream, StopTokens(models.stop_ids))
        alone = Autoregressive().generate(models, request, clock_for(models.target.device))
        assert answer == list(alone.tokens)
