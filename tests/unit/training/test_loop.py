"""One descent, alone or by two processes, and what its schedule is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from specbench.errors import TrainingError
from specbench.training.loop import Log, Loss, descend, factor_of, in_processes

ROWS = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [2.0, 2.0]])
STEPS = 5


def descent(rank: int, processes: int) -> torch.Tensor:
    """Fit rows to their sums; each process reads its own share of them."""
    weight = torch.nn.Parameter(torch.tensor([0.5, -0.5]))
    optimizer = torch.optim.SGD([weight], lr=0.05)

    def loss(step: int) -> Loss:
        own = ROWS[rank::processes]
        return Loss(((own @ weight - own.sum(1)) ** 2).sum() / len(ROWS), 1.0)

    descend([weight], STEPS, loss, lambda step: optimizer.step(), Log("fit", 5), say=lambda _: None)
    return weight.detach()


def work(path: str) -> None:
    state = PartialState()
    found = descent(state.process_index, state.num_processes)
    torch.save(found, f"{path}/{state.process_index}of{state.num_processes}")


@pytest.mark.slow
def test_two_processes_descend_as_one(tmp_path: Path) -> None:
    in_processes(work, str(tmp_path))
    alone = descent(0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0of2", "1of2"]
    for path in tmp_path.iterdir():
        torch.testing.assert_close(torch.load(path, weights_only=True), alone)


def test_a_schedule_rises_and_falls() -> None:
    cosine = [factor_of(step, 100, "cosine", 0.1) for step in range(100)]
    assert cosine[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert cosine[55] == pytest.approx(0.5) and cosine[99] < 0.001
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    linear = [factor_of(step, 100, "linear", 0.0) for step in range(100)]
    assert linear == pytest.approx([1 - step / 100 for step in range(100)])
    assert {factor_of(step, 100, "constant", 0.0) for step in range(100)} == {1.0}


def test_a_gradient_that_is_no_number_takes_no_step() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    taken: list[int] = []
    with pytest.raises(TrainingError, match="gradient is not finite at step 1"):
        descend(
            [weight],
            3,
            lambda step: Loss(weight.sqrt().sum(), 0.0),
            taken.append,
            Log("fit", 1),
            say=lambda _: None,
        )
    assert taken == []
