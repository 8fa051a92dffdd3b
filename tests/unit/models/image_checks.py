"""What every adapter of an image model must pass, whatever its checkpoint's format.

A family gives its loaded pair and a reference: the mixed logits [places, K] of a prompt and of
generated tokens, computed anew from the whole sequence.
"""

from __future__ import annotations

import torch

from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.tree import TreeMask
from specbench.law import Guidance, Law
from specbench.models.base import View
from specbench.models.image import CODE
from specbench.models.pair import ModelPair
from specbench.schema import catalog
from specbench.schema.build import locate
from specbench.schema.model import ModelConfig
from tests.unit.decoding.parts import Autoregressive, generate


def load_entry(name, *, loader=None, needs=(), **changes) -> ModelPair:
    """Load a model entry by its own loader, as a run does, with changed keys."""
    entry = {**catalog.load("model", name), "device": "cpu", "weights_gb": None, **changes}
    entry["loader"] = {**entry["loader"], **(loader or {})}
    config = ModelConfig.from_dict(entry)
    options = {key: value for key, value in config.loader.items() if key != "_target_"}
    pair = locate(config.loader["_target_"])(config, needs=frozenset(needs), **options)
    assert isinstance(pair, ModelPair)
    return pair


def law_of(scale, temperature=1.0, top_k=None):
    return Law(temperature, top_k=top_k, guidance=Guidance(scale))


def picture(pair, seed=0):
    """Return one picture's tokens: random codes, and forced tokens where the grid has them."""
    grid, first = pair.image.grid, pair.image.first_code
    codes = torch.randint(
        pair.image.codes, (grid.length,), generator=torch.Generator().manual_seed(seed)
    )
    pairs = zip(codes.tolist(), grid.forced, strict=True)
    return [first + code if forced == CODE else forced for code, forced in pairs]


def close(pair, logits, want, forced, tolerance):
    """Compare logits [V] of one place with the reference's [K], or with the forced token."""
    first, count = pair.image.first_code, pair.image.codes
    finite = logits.isfinite().nonzero().flatten().tolist()
    if forced != CODE:
        assert finite == [forced]
        return
    assert finite == list(range(first, first + count))
    got = logits[first : first + count].double()
    torch.testing.assert_close(got, want.double(), atol=tolerance, rtol=tolerance)


def check_forwards(pair, prompt, reference, scale, tolerance=1e-9):
    """Prefill, steps, windows, rollback and trees give what whole sequences give."""
    pair = pair.under(law_of(scale))
    grid, target = pair.image.grid, pair.target
    tokens = picture(pair)
    want = reference(prompt, tokens[:-1], scale)
    assert len(want) == grid.length
    for step in (1, 4, len(tokens)):
        cache = pair.target_cache(len(prompt) + grid.length)
        rows = [target.forward(torch.tensor([prompt]), cache, View(last=1))]
        for start in range(0, len(tokens) - 1, step):
            fed = tokens[:-1][start : start + step]
            rows.append(target.forward(torch.tensor([fed]), cache))
        for place, logits in enumerate(torch.cat(rows, 1)[0]):
            close(pair, logits, want[place], grid.forced[place], tolerance)
        assert cache.lengths == [len(prompt) + len(tokens) - 1]
    _check_rollback(pair, prompt, tokens, want, tolerance)
    _check_tree(pair, prompt, tokens, reference, scale, tolerance)


def _check_rollback(pair, prompt, tokens, want, tolerance):
    """A wrong window leaves nothing behind."""
    target, grid = pair.target, pair.image.grid
    kept, wrong = 3, picture(pair, seed=9)
    cache = pair.target_cache(len(prompt) + grid.length)
    target.forward(torch.tensor([[*prompt, *tokens[:kept], *wrong[kept : kept + 4]]]), cache)
    cache.truncate([len(prompt) + kept])
    logits = target.forward(torch.tensor([tokens[kept : kept + 3]]), cache)[0]
    for offset, row in enumerate(logits):
        place = kept + offset + 1
        close(pair, row, want[place], grid.forced[place], tolerance)


def _check_tree(pair, prompt, tokens, reference, scale, tolerance):
    """Nodes stand at the place of their depth, and a kept path continues the picture."""
    target, grid = pair.target, pair.image.grid
    other = [*picture(pair, seed=5)[:2], *tokens[2:]]
    cache = pair.target_cache(len(prompt) + grid.length)
    target.forward(torch.tensor([prompt]), cache, View(last=1))
    nodes = [tokens[1], other[1], tokens[2], other[2]]
    mask = TreeMask.from_parents((-1, -1, 0, 1))
    logits = target.forward(torch.tensor([[tokens[0], *nodes]]), cache, View(mask=mask))[0]
    paths = [[], [tokens[1]], [other[1]], [tokens[1], tokens[2]], [other[1], other[2]]]
    for row, path in zip(logits, paths, strict=True):
        whole = [tokens[0], *path]
        want = reference(prompt, whole, scale)[-1]
        close(pair, row, want, grid.forced[len(whole)], tolerance)
    cache.keep([len(prompt)], [[0, 2, 4]])
    after = target.forward(torch.tensor([[tokens[3]]]), cache)[0, -1]
    want = reference(prompt, [tokens[0], other[1], other[2], tokens[3]], scale)[-1]
    close(pair, after, want, grid.forced[4], tolerance)


def check_pictures_obey_the_grid(pair, prompts, decoder=None):
    """Sampled tokens are codes where the grid has codes and forced tokens elsewhere."""
    law = law_of(2.0, top_k=5)
    pair = pair.under(law)
    grid, first = pair.image.grid, pair.image.first_code
    for seed, prompt in enumerate(prompts):
        made = generate(decoder or Autoregressive(), pair, law, prompt, grid.length, seed)
        assert len(made.tokens) == grid.length
        for token, forced in zip(made.tokens, grid.forced, strict=True):
            assert token == forced or (forced == CODE and first <= token < first + pair.image.codes)


def check_identical(pair, prompt, decoder=None, temperatures=(0.0, 1.0)):
    """A decoder that follows the same random numbers draws the very picture of plain decoding."""
    for temperature in temperatures:
        law = law_of(3.0, temperature, top_k=6)
        pair = pair.under(law)
        runs = [
            generate(each, pair, law, prompt, pair.image.grid.length, seed=4).tokens
            for each in (Autoregressive(), decoder or Jacobi(window=4))
        ]
        assert runs[0] == runs[1]
