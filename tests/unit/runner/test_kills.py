"""A run that is killed, whenever that is, loses nothing measured and counts nothing twice.

A child measures a toy job and tells through a pipe what stands safely in its journal. It dies by
SIGKILL: at random moments, and at every single one of its operations on files in turn, a write
torn in its middle included. The same job is then started again until it ends.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specbench import store
from specbench.runner import run_job
from specbench.schema.config import TimingConfig
from tests.unit.runner import toy

NEVER = 1 << 60

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def job(folder: Path, samples: int, repeats: int):
    letters = "abcdefghijk"
    turns = [(letters[i % 11] + letters[(3 * i) % 11],) for i in range(samples)]
    return toy.config(folder, turns, timing=TimingConfig(repeats=repeats, warmup=1, threads=1))


class Child:
    """A forked process that runs a job; `safe` is what it said to stand in the journal."""

    def __init__(self, config: Any, prepare: Callable[[], None] = lambda: None) -> None:
        self.safe: dict[tuple[Any, ...], float] = {}
        self._rest = b""
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        code = 1
        try:
            os.close(self._reader)
            _tell(writer)
            prepare()
            run_job(config)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def kill_after(self, seconds: float, measured: bool) -> bool:
        """Kill the child a while after its start, or after its first measurement.

        Returns:
            Whether it had ended by itself.
        """
        while measured and not self.safe and self._read():
            pass
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._reader], [], [], left)[0] and not self._read():
                break
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> bool:
        """Hear the child out; return whether it ended well."""
        while self._read():
            pass
        os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the job itself failed"
        return not os.WIFSIGNALED(status)

    def _read(self) -> bool:
        data = os.read(self._reader, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            *key, started = json.loads(line)
            self.safe[tuple(key)] = started
        return bool(data)


def _tell(writer: int) -> None:
    """Make every journal of this process report its rows once they are appended."""
    append = store.Journal.append_many
    pipe = os.fdopen(writer, "wb", buffering=0)  # not through os.write, which the tests wrap

    def appended(journal: Any, rows: Any) -> None:
        append(journal, rows)
        for row in rows:
            line = [row["arm"], row["sample_id"], row["repeat"], row["process"]]
            pipe.write(json.dumps([*line, row["started_unix"]]).encode() + b"\n")

    store.Journal.append_many = appended  # type: ignore[method-assign]


def check_whole(config: Any, samples: int, repeats: int, safe: dict[tuple[Any, ...], float]):
    """Check the one result file: every measurement once, the safe ones as they first were."""
    (path,) = config.results_dir.glob("*.parquet")
    rows = store.read_parquet(path).rows
    keys = list(rows[["arm", "sample_id", "repeat", "process"]].itertuples(index=False, name=None))
    assert len(keys) == len(set(keys)) == 2 * samples * repeats
    assert rows["error"].isna().all()
    started = dict(zip(keys, rows["started_unix"], strict=True))
    assert {key: started[key] for key in safe} == safe
    return rows


@pytest.mark.parametrize("wanted", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path, wanted):
    samples, repeats = 60, 3
    plain = job(tmp_path / "plain", samples, repeats)
    run_job(plain)
    columns = ["arm", "sample_id", "repeat", "new_tokens", "target_forwards", "draft_tokens"]
    expected = check_whole(plain, samples, repeats, {})[columns]
    chance = random.Random(0)
    kills = jobs = late = 0
    while (
        kills < wanted
    ):  # a job that ends before it was killed often enough makes room for another
        jobs += 1
        config = job(tmp_path / str(jobs), samples, repeats)
        safe: dict[tuple[Any, ...], float] = {}
        ended = False
        while not ended:
            child = Child(config)
            moment = chance.uniform(0.0, 0.1), chance.random() < 0.5
            ended = child.kill_after(*moment) if kills < wanted else child.wait()
            kills += not ended
            assert not set(child.safe) & set(safe), "what was safe is measured again"
            safe |= child.safe
            late += bool(child.safe) and not ended
            journals = list(config.results_dir.rglob("*.jsonl"))
            if safe and not list(config.results_dir.glob("*.parquet")):
                assert len(journals) == 1, "the journal of what was measured is gone"
        assert check_whole(config, samples, repeats, safe)[columns].equals(expected)
    assert late, "no kill came after a measurement, so that nothing was shown"


def die_at(operation: int, torn: bool) -> Callable[[], None]:
    """Return what makes a process kill itself at its n-th operation on files.

    Args:
        operation: Which of them, counted from 1.
        torn: Whether only writes count, and half of the n-th one is written.
    """

    def arm() -> None:
        count = 0

        def die(before: Callable[[], Any] = lambda: None) -> None:
            nonlocal count
            count += 1
            if count == operation:
                before()
                os.kill(os.getpid(), signal.SIGKILL)

        write = os.write

        def torn_write(descriptor: int, data: Any) -> int:
            die(lambda: write(descriptor, bytes(data)[: len(data) // 2]) if torn else None)
            return write(descriptor, data)

        os.write = torn_write  # type: ignore[assignment]
        for name in () if torn else ("fsync", "replace", "ftruncate", "unlink", "rmdir"):
            setattr(os, name, _dying(getattr(os, name), die))

    return arm


def _dying(original: Callable[..., Any], die: Callable[[], None]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        die()
        return original(*arguments, **options)

    return wrapped


@pytest.mark.parametrize("torn", [False, True], ids=["before", "torn"])
def test_a_kill_at_every_operation_on_files(tmp_path, torn):
    samples, repeats = 2, 1
    operation, ended = 0, False
    while not ended:
        operation += 1
        config = job(tmp_path / str(operation), samples, repeats)
        child = Child(config, die_at(operation, torn))
        ended = child.wait()
        safe = dict(child.safe)
        if not ended:
            again = Child(config)
            assert again.wait()
            assert not set(again.safe) & set(safe), f"measured twice after a kill at {operation}"
            safe |= again.safe
        check_whole(config, samples, repeats, safe)
        assert not list(config.results_dir.rglob("*.jsonl")), "a journal is left behind"
        assert operation < 200
    assert operation > 3, "the job did not pass through the operations that are killed"
