"""ZipAR: decode the rows of a picture side by side, each a little behind the one above.

He et al. 2025, "ZipAR: Parallel Autoregressive Image Generation through Spatial Locality" (ICML
2025, arXiv 2412.04062); read in github.com/ThisisBillhe/ZipAR,
LlamaGen-ZipAR/autoregressive/models/generate_zipar.py and
Lumina-mGPT-ZipAR/lumina_mgpt/model/chameleon/modeling_chameleon.py (`_sample`). A code depends
mostly on its neighbours to the left and above, so that row r + 1 can start as soon as row r holds
`window` codes. All rows on their way draw their next code from one forward, independently of each
other. A row's first code needs what stands before it in raster order, the end of the row above:
a forced row end is known; a missing code is replaced by a stand-in (see `wavefront.plan`).

A grid of n rows and m columns takes m + (n - 1) window forwards, and none for tokens that the
grid forces. A query sees every token that is there and stands before it in raster order. With a
window of m columns or more the order is raster order, and the tokens are those of plain decoding
with the same random numbers; below, rows are drawn without what is missing above: lossy.

Lumina-mGPT's release counts the token before a row with its codes: what it calls a window of 16
starts a row behind 15 codes, and is a window of 15 here. LlamaGen's counts as this one does.

Differences from the released code: LlamaGen's decodes the whole first row alone, while here, as
in its Lumina-mGPT, the second row starts early too; LlamaGen's lets a query see the zeros of
cache slots that nothing was written to, where Lumina-mGPT's and this one hide them; the paper's
adaptive choice of the window by rejection sampling is not in the released code, nor here.

Tokens are emitted in raster order: a round emits what completes the unbroken raster prefix.
Earlier rounds drew part of that; a round's forward is counted where it ran.

Shapes: F fed slots, G generated tokens, T tokens of one forward, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.base import Decoder
from specbench.decoding.codebook import image_of
from specbench.decoding.loops.wavefront import Plan, plan
from specbench.decoding.ranges import check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.decoding.tree import TreeMask
from specbench.errors import ConfigError
from specbench.law import seen_in
from specbench.models.image import Grid
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device


class _Wavefront(NamedTuple):
    """A plan with its tables on the device.

    Attributes:
        plan: The order of the forwards.
        sources: [F] which generated token each slot is fed with.
        targets: [number of drawn tokens] in the order of drawing.
        offsets: [F] positions, from 0 at the first generated token.
        visible: [F, F] bool, who sees whom.
        forced: [G] forced ids, 0 where there is none.
    """

    plan: Plan
    sources: Tensor
    targets: Tensor
    offsets: Tensor
    visible: Tensor
    forced: Tensor


class ZipAR(Decoder):
    """Overlapping rows.

    Args:
        window: Codes that a row must hold before the next one starts, at least 1; None is a
            third of a row.

    Raises:
        ConfigError: If the window is less than one.
    """

    needs = frozenset({"image", "tree_mask"})

    def __init__(self, window: int | None = None) -> None:
        if window is not None:
            check_whole("window", window, 1)
        self._window = window
        self._planned: tuple[Grid, torch.device, _Wavefront] | None = None

    def prepare(self, models: ModelPair) -> None:
        """Plan the forwards of the model's grid.

        Raises:
            ConfigError: If the model draws no pictures.
        """
        self._wavefront(image_of(models, "ZipAR").grid, models.target.device)

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots that stand-ins need.

        Raises:
            ConfigError: If the model draws no pictures, or more tokens are asked for than a
                picture has.
        """
        grid = _asked(image_of(models, "ZipAR").grid, request)
        plan = self._wavefront(grid, models.target.device).plan
        return max(plan.slots - request.max_new_tokens, 0)

    def rounds(self, session: Session) -> Rounds:
        """Draw one code of every row that is on its way, and emit what is complete."""
        request, device, law = session.request, session.prompt.device, session.request.law
        grid = _asked(image_of(session.models, "ZipAR").grid, request)
        front = self._wavefront(grid, device)
        position = len(request.prompt)
        numbers = [
            request.streams.uniform(position + index, Purpose.SAMPLE)
            for index in range(grid.length)
        ]
        uniforms = to_device(numbers, device, torch.float64)
        drawn = front.forced.clone()
        known = [max(token, 0) for token in grid.forced]
        width = session.models.target.vocab_size
        seen = _Seen(session.prompt, drawn, width) if law.needs_history else None
        first = 0
        for step in front.plan.steps:
            begin, end, count = step.begin, step.end, len(step.targets)
            if begin == end:
                fed, mask = session.prompt, None
            else:
                fed = drawn[front.sources[begin:end]][None]
                mask = None if step.ordered else _mask(front, begin, end)
            logits = session.feed(fed, mask, last=count)[0]
            places = front.targets[first : first + count]
            first += count
            history = None if seen is None else seen.before(places)
            if law.greedy:
                tokens = law.argmax(logits, history)
            else:
                laws = law.probabilities(logits, history)
                tokens = session.request.choices.draw(laws, uniforms[places])
            drawn[places] = tokens
            if seen is not None:
                seen.add(step.targets)
            for place, token in zip(step.targets, session.read(tokens), strict=True):
                known[place] = token
            session.committed += known[session.emitted : step.complete]
            yield session.close(decided=count)

    def _wavefront(self, grid: Grid, device: torch.device) -> _Wavefront:
        """Return the plan of a grid with its tables, made once."""
        if self._planned is not None and self._planned[:2] == (grid, device):
            return self._planned[2]
        window = max(grid.columns // 3, 1) if self._window is None else self._window
        order = plan(grid, window)
        front = _Wavefront(
            order,
            to_device(order.sources, device),
            to_device([t for step in order.steps for t in step.targets], device),
            to_device(order.positions, device),
            order.visible(device),
            to_device([max(token, 0) for token in grid.forced], device),
        )
        self._planned = (grid, device, front)
        return front


class _Seen:
    """What each query's history holds, for laws that look at it.

    Args:
        prompt: [1, P].
        drawn: [G] generated tokens; kept up to date by the decoder.
        vocab_size: V.
    """

    def __init__(self, prompt: Tensor, drawn: Tensor, vocab_size: int) -> None:
        self._prompt = seen_in(prompt, vocab_size)
        self._drawn = drawn
        self._known: list[int] = []

    def add(self, places: tuple[int, ...]) -> None:
        """Say that some tokens are drawn."""
        self._known += places

    def before(self, places: Tensor) -> Tensor:
        """Return [T, V]: the prompt and what is drawn before each place in raster order."""
        seen = self._prompt.int().repeat(places.shape[0], 1)
        known = to_device(self._known, places.device, torch.int64)
        before = known[None] < places[:, None]
        return seen.scatter_add_(1, self._drawn[known].expand_as(before), before.int()) > 0


def _mask(front: _Wavefront, begin: int, end: int) -> TreeMask:
    """Return who sees whom in the forward that fills slots `begin` to `end`."""
    first = min(front.plan.base, begin)
    return TreeMask(front.offsets[first:end] - first, front.visible[begin:end, first:end])


def _asked(grid: Grid, request: Request) -> Grid:
    """Return the rows of a grid that a request asks for.

    Raises:
        ConfigError: If it asks for more tokens than a picture has.
    """
    count = request.max_new_tokens
    if count > grid.length:
        raise ConfigError(
            f"{count} new tokens are more than the {grid.length} of a picture",
            "ZipAR fills one grid of codes",
            f"Set max_new_tokens to {grid.length}, or leave it out.",
        )
    rows = -(-max(count - grid.text, 1) // grid.width)
    return grid if rows >= grid.rows else replace(grid, rows=rows, ending=())
