"""The played device notices what a real one would wait for; plain decoding runs ahead on it."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock, CudaClock
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request, StopTokens
from specbench.law import History, Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams
from specbench.transfer import Pending, to_device
from tests.unit.decoding.transfers import CUDA, CountingClock, OnDevice, on_device, watch

READS = {
    "tolist": lambda x: x.tolist(),
    "item": lambda x: x[0].item(),
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "if any": lambda x: 1 if x.any() else 0,
    "cpu": lambda x: x.cpu(),
    "to cpu": lambda x: x.to("cpu"),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "a single index": lambda x: x[x[1]],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "repeats": lambda x: torch.repeat_interleave(x),
}
UPLOADS = {
    "tensor": lambda x: torch.tensor([1, 2, 3], device=x.device),
    "as_tensor": lambda x: torch.as_tensor([1.0], device="cuda:7"),
    "to": lambda x: torch.arange(3).to(x.device),
    "copy_": lambda x: x.copy_(torch.arange(3)),
    "a list as an index": lambda x: x[[0, 2]],
    "a host tensor as an index": lambda x: x[torch.tensor([0, 2])],
    "a number by index": lambda x: x.__setitem__(x.clone(), 1),
}
FREE = {
    "arithmetic": lambda x: (x * 2 + 1).double().cumsum(0),
    "slices": lambda x: x[1:].clone(),
    "index": lambda x: x[x],
    "where": lambda x: torch.where(x > 0, x, 0),
    "fill": lambda x: x[:2].fill_(1),
    "a number by slice": lambda x: x.__setitem__(slice(0, 2), 1),
    "scatter": lambda x: x.scatter(0, x, 1),
    "made there": lambda x: torch.zeros(3, device=x.device) + torch.arange(3, device="cuda:7"),
    "shape": lambda x: x.shape[0] + len(x) + x.numel(),
}


def looked(action):
    """Return the reads and uploads of an action on [0, 1, 2]."""
    with watch() as watched:
        action(to_device([0, 1, 2], CUDA))
    return watched.reads.total(), watched.uploads.total()


@pytest.mark.parametrize("name", READS)
def test_a_look_is_counted(name):
    reads, uploads = looked(READS[name])
    assert reads >= 1 and not uploads


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_that_waits_is_counted(name):
    reads, uploads = looked(UPLOADS[name])
    assert uploads == 1 and not reads


@pytest.mark.parametrize("name", FREE)
def test_work_on_the_device_is_free(name):
    assert looked(FREE[name]) == (0, 0)


def test_what_comes_of_the_device_is_on_the_device():
    with watch():
        x = to_device([0, 1, 2], CUDA)
        for result in (x + 1, x[1:], x.double(), torch.stack([x, x]), x.sort().values):
            assert isinstance(result, OnDevice)
            assert result.is_cuda and result.device == CUDA


def test_host_and_device_do_not_mix():
    with watch():
        x = to_device([0, 1, 2], CUDA)
        with pytest.raises(AssertionError, match="mixes"):
            x + torch.arange(3)
        assert (x + torch.tensor(1)).tolist() == [1, 2, 3], "a number of the host may"


def test_history_along_a_draft_is_neither_looked_at_nor_uploaded():
    law = Law(repetition_penalty=1.2)
    plain = History(law, torch.tensor([[0, 1]]), 8).along(torch.tensor([[3, 4, 5]]), None)
    with watch() as watched:
        history = History(law, to_device([[0, 1]], CUDA), 8)
        seen = history.along(to_device([[3, 4, 5]], CUDA), None)
        assert not watched.reads and not watched.uploads
    assert torch.equal(seen.as_subclass(torch.Tensor), plain)


def pair(seed=3, vocabulary=6):
    return ModelPair("toy", TableModel(markov_table(1, vocabulary, seed), vocabulary))


def asked(count, law, stop=()):
    return Request((0, 1, 2), count, law, Streams(1, "ahead"), StopTokens(frozenset(stop)))


class Diary(CountingClock):
    """Writes down in which order steps were enqueued, rounds sealed and closed."""

    def start(self):
        self.entries = []
        super().start()

    def lap(self, segment):
        self.entries.append(f"lap {segment.name}")
        super().lap(segment)

    def seal(self):
        self.entries.append("seal")
        super().seal()

    def mark(self):
        self.entries.append("mark")
        super().mark()


def ahead(count, law, stop=()):
    """Return plain decoding's generation on the played device, and its diary."""
    with watch() as watched:
        clock = Diary(watched)
        generation = Autoregressive().generate(on_device(pair()), asked(count, law, stop), clock)
    return generation, clock


LAWS = [Law(temperature=0.0), Law(), Law(temperature=0.0, repetition_penalty=1.3)]


@pytest.mark.parametrize("law", LAWS, ids=["greedy", "sampled", "penalty"])
@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_running_ahead_emits_the_same_tokens_and_wastes_no_forward_at_the_limit(law, count):
    plain = Autoregressive().generate(pair(), asked(count, law), CpuClock())
    generation, clock = ahead(count, law)
    assert generation.tokens == plain.tokens and generation.stop_reason == plain.stop_reason
    assert [r.count for r in generation.rounds] == [r.count for r in plain.rounds]
    assert [traffic.reads.total() for traffic in clock.traffic] == [1] * count


@pytest.mark.parametrize("place", range(5))
def test_a_forward_behind_the_end_of_the_text_is_counted_in_the_last_round(place):
    law = Law()
    plain = Autoregressive().generate(pair(), asked(12, law), CpuClock())
    stop = plain.tokens[place]
    first = plain.tokens.index(stop)
    generation, clock = ahead(12, law, stop=(stop,))
    assert generation.tokens == plain.tokens[: first + 1]
    counts = [r.count for r in generation.rounds]
    assert len(counts) == first + 1 == sum(count.emitted for count in counts)
    assert [count.target.forwards for count in counts] == [1] * first + [2]
    assert counts[-1].target.tokens == (4 if first == 0 else 2)
    assert clock.entries.count("lap TARGET") == first + 2


def test_the_next_step_is_enqueued_before_a_token_is_read():
    _, clock = ahead(4, Law())
    step = ["lap TARGET", "seal"]
    assert clock.entries == [*step, *step, "mark", *step, "mark", *step, "mark", "mark"]


def test_nothing_runs_ahead_on_a_cpu():
    with watch() as watched:
        clock = Diary(watched)
        with watched.rest():
            Autoregressive().generate(pair(), asked(3, Law()), clock)
    assert clock.entries == ["lap TARGET", "mark"] * 3


def test_a_second_look_in_a_round_would_be_seen():
    """Mutation: plain decoding looks at every token twice."""

    class Twice(Pending):
        def values(self):
            self._event.synchronize()
            return super().values()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specbench.decoding.loops.autoregressive.Pending", Twice)
        _, clock = ahead(3, Law())
    assert [traffic.reads.total() for traffic in clock.traffic] == [2] * 3


class Ticks:
    """A CUDA whose device and host times are counted calls."""

    def __init__(self):
        self.time = 0

    def stream(self):
        return self

    def query(self):
        return False

    def synchronize(self):
        pass

    def capturing(self):
        return False

    def now(self):
        self.time += 1
        return self.time * 1_000_000

    def event(self):
        return Tick(self)


class Tick:
    def __init__(self, cuda):
        self._cuda = cuda

    def record(self, stream):
        self.at = self._cuda.now() / 1_000_000

    def elapsed_time(self, end_event):
        return end_event.at - self.at


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_every_round_that_ran_ahead_has_its_own_times(count, stopped):
    law = Law()
    plain = Autoregressive().generate(pair(), asked(count, law), CpuClock())
    stop = plain.tokens[-1:] if stopped else ()
    with watch():
        clock = CudaClock(CUDA, Ticks())
        generation = Autoregressive().generate(on_device(pair()), asked(count, law, stop), clock)
    assert len(generation.rounds) == len(generation.tokens)
    assert all(r.target_ns > 0 and r.sampling_ns > 0 for r in generation.rounds)
    assert all(r.draft_ns == 0 for r in generation.rounds)
