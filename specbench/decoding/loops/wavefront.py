"""The order in which overlapping rows of a picture are decoded, and who sees whom.

It depends on the grid and the window alone, so it is planned once: which tokens every forward
feeds, at which positions, and which tokens it yields. A fed token occupies one slot of the cache
behind the prompt, in the order of feeding; its position is its place in raster order. Because a
slot is fed once and a query never looks again, who sees whom is one fixed table of slots, and the
mask of a forward is a slice of it.

Shapes: F fed slots, G generated tokens, T tokens of one forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.models.image import Grid
from specbench.transfer import to_device


class Step(NamedTuple):
    """One forward.

    Attributes:
        begin: First slot that it fills; the prompt's forward fills none.
        end: Slot behind the last one.
        targets: Generated tokens that it yields, in raster order: the answers to its last
            `len(targets)` fed tokens.
        ordered: Whether all slots up to `end` stand in raster order, so that no mask is needed.
        complete: Generated tokens that stand in an unbroken raster prefix after it, forced ones
            included.
    """

    begin: int
    end: int
    targets: tuple[int, ...]
    ordered: bool
    complete: int


@dataclass(frozen=True)
class Plan:
    """All forwards of one picture.

    Attributes:
        steps: The forwards; the first is the prompt's.
        sources: [F] which generated token each slot is fed with.
        positions: [F] place in raster order, from 0 at the first generated token. A stand-in is
            fed with one token at the place of another.
        stale: [F] first slot that no longer sees a slot, because the token that it stood in for
            has come; F where it stays.
        base: Leading slots in raster order that every forward with a mask sees whole.
    """

    steps: tuple[Step, ...]
    sources: tuple[int, ...]
    positions: tuple[int, ...]
    stale: tuple[int, ...]
    base: int

    @property
    def slots(self) -> int:
        """Cache slots behind the prompt."""
        return len(self.sources)

    @property
    def stand_ins(self) -> int:
        """Fed tokens that stood in for ones that were not there yet."""
        return sum(stale < self.slots for stale in self.stale)

    def visible(self, device: torch.device) -> Tensor:
        """Return [F, F] bool: whether the query of slot i sees slot j, of slots fed before it.

        A query sees whatever was fed, in its own forward or earlier, at its place or before,
        except stand-ins whose token has come.
        """
        places = to_device(self.positions, device)
        stale = to_device(self.stale, device)
        slots = torch.arange(self.slots, device=device)
        return (places[None, :] <= places[:, None]) & (slots[:, None] < stale[None, :])


def plan(grid: Grid, window: int) -> Plan:
    """Plan the forwards of a picture whose row r + 1 starts once row r holds `window` codes.

    Every row that has started and is not full yields one code in each forward, in answer to its
    newest code. The first code of a row answers to what stands before it: a forced row end, or
    the last code of the row above. Where the latter is missing, the newest code of the row above
    that one stands in for it (the first row has none above, and lends its own newest code); the
    true code is fed as soon as it is there, and the stand-in is seen no more.

    Args:
        grid: The generated tokens.
        window: At least 1; from `grid.columns` on this is raster order.
    """
    return _Planner(grid, window).plan()


class _Planner:
    """The state of planning."""

    def __init__(self, grid: Grid, window: int) -> None:
        self._grid = grid
        self._window = min(window, grid.columns)
        self._sources: list[int] = []
        self._positions: list[int] = []
        self._stale: dict[int, int] = {}
        self._waiting: dict[int, int] = {}  # place of a missing token -> slot of its stand-in
        self._held = [0] * grid.rows
        self._fed: set[int] = set()
        self._known = [token >= 0 for token in grid.forced]
        self._complete = 0

    def plan(self) -> Plan:
        """Return the whole plan."""
        steps: list[Step] = []
        grid = self._grid
        for target in range(grid.text):
            steps.append(self._step([target - 1] if target else [], [target]))
        while self._held[-1] < grid.columns:
            steps.append(self._advance())
        slots = len(self._sources)
        stale = tuple(self._stale.get(slot, slots) for slot in range(slots))
        base = 0
        while base < slots and self._positions[base] == base and stale[base] == slots:
            base += 1
        return Plan(tuple(steps), tuple(self._sources), tuple(self._positions), stale, base)

    def _advance(self) -> Step:
        """Yield one code of every row that is on its way."""
        grid, held = self._grid, self._held
        before = tuple(held)
        queries: list[int] = []
        targets: list[int] = []
        done: list[int] = []
        for row in range(grid.rows):
            if before[row] == grid.columns:
                last = grid.index(row, grid.columns - 1)
                if last not in self._fed and row + 1 < grid.rows:
                    done.append(last)
                continue
            if row and before[row - 1] < self._window:
                break
            target = grid.index(row, before[row])
            queries.append(target - 1)
            targets.append(target)
            held[row] += 1
        first = grid.text == 0 and before[0] == 0
        return self._step([] if first else sorted({*done, *queries}), targets)

    def _step(self, places: list[int], targets: list[int]) -> Step:
        """Feed the tokens of some places, the last ones of which ask for the targets."""
        assert [target - 1 for target in targets] == places[-len(targets) :] or not places
        begin = len(self._sources)
        for place in places:
            slot = len(self._sources)
            if self._known[place]:
                self._fed.add(place)
                if place in self._waiting:
                    self._stale[self._waiting.pop(place)] = begin
                self._sources.append(place)
            else:
                self._waiting[place] = slot
                self._sources.append(self._stand_in(place))
            self._positions.append(place)
        for target in targets:
            self._known[target] = True
        while self._complete < len(self._known) and self._known[self._complete]:
            self._complete += 1
        end = len(self._sources)
        ordered = self._positions == list(range(end)) and not self._stale and not self._waiting
        return Step(begin, end, tuple(targets), ordered, self._complete)

    def _stand_in(self, place: int) -> int:
        """Return the newest code of the row above the one of `place`."""
        row = self._grid.place(place)[0]
        above = max(row - 1, 0)
        first = self._grid.index(above, 0)
        codes = range(first, first + self._grid.columns)
        return max(index for index in codes if self._known[index])
