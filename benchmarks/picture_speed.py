"""Time decoders of pictures on random models of real vocabulary width.

    python -m benchmarks.picture_speed lumina emu3 janus_pro_1b lumina2 --tokens 100
    python -m benchmarks.picture_speed lumina --shape chameleon_7b --device cuda --methods ar mc_sjd

The body is random, and small unless --shape names a real one; vocabulary, codes, grid and law are
those of the model's entry, so that what a decoder does beside the forwards costs what it costs on
the checkpoint. Every method runs with laws over the allowed ids (as every run does) and,
interleaved with it, with laws over all published ids. On a CPU one thread, and its processor time,
so that other work on the machine counts little; on a GPU the engine and the clock of a run. Prints
means over rounds; asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from specbench.clock import CpuClock, clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request
from specbench.hosting import load_method
from specbench.law import OWN, Guidance, Law
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import switch
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid, Rows
from specbench.models.lean_weights import projection
from specbench.models.pair import ModelPair
from specbench.models.random_weights import RandomModel, random_weights
from specbench.predict import shape_named
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.schema.shape import Shape

VOCABULARIES = {"lumina": 65_536, "lumina2": 171_385, "emu3": 184_622, "janus_pro_1b": 118_784}
"""Published ids; Janus-Pro's 16,384 codes are numbered behind its 102,400 words."""

METHODS = ("ar", "sjd", "mc_sjd", "gsd", "token_sd", "dynamic_tree")
PROMPT = 24


@dataclass
class Side:
    """A grid and a random codebook without pixels."""

    grid: Grid
    first_code: int
    codebook: Tensor
    can_draw: bool = False

    @property
    def codes(self) -> int:
        """K."""
        return self.codebook.shape[0]

    def vectors(self, space: str) -> Tensor:
        """Return the codebook for every space."""
        return self.codebook

    def encode(self, prompt: str) -> list[int]:
        """Return a prompt of words."""
        words = [token for token in range(self.first_code + self.codes + PROMPT)][-PROMPT:]
        return words if self.first_code < PROMPT else list(range(PROMPT))

    def pixels(self, tokens: Sequence[int]) -> Any:
        """Nothing is drawn."""
        raise NotImplementedError


class ProcessorClock(CpuClock):
    """Processor time of this thread."""

    def _now(self) -> int:
        return time.thread_time_ns()


class Conditions:
    """The unconditional row has word 0 in the place of the prompt's words."""

    longest = 0

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the rows of a prompt."""
        return Rows(torch.tensor([list(prompt), [0] * len(prompt)][:count]), (0,) * count)


def body_shape(name: str, options: argparse.Namespace) -> Shape:
    """Return the shape of a target with the vocabulary of a model entry."""
    if options.shape:
        return replace(shape_named(options.shape), vocabulary=VOCABULARIES[name], tied=True)
    heads = options.width // 64
    size = (options.width, options.layers, heads, heads, 64, 3 * options.width)
    return Shape(name, name, *size, VOCABULARIES[name], tied=True)


def bodies(shape: Shape, codes: int, first: int, device: torch.device) -> list[LeanDecoder]:
    """Return a target of a shape and a draft of one of its blocks, with heads over the codes.

    A bias keeps the laws of neighbouring places alike, so that drafts are accepted at times.
    """
    made = []
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    for seed, depth in enumerate((shape.layers, 1)):
        own = replace(shape, layers=depth)
        model = RandomModel(own, 4096, device, dtype, seed)
        bias = 2.5 * torch.randn(codes, generator=torch.Generator().manual_seed(7))
        rows = model.matrix("head", codes, shape.hidden_size)
        head = projection(rows, bias.to(device, dtype), device=device, dtype=dtype)
        weights = replace(random_weights(model), head=head, head_first=first)
        made.append(LeanDecoder(weights, f"{shape.name} {seed}"))
    return made


def pair_of(name: str, made: Sequence[LeanDecoder], side: Side, law: Law) -> ModelPair:
    """Return a pair of guided models over some bodies."""
    first, codes = side.first_code, side.codes
    models = [
        GuidedModel(body, Conditions(), side.grid, first, codes, VOCABULARIES[name], first)
        for body in made
    ]
    pair = ModelPair(name, models[0], models[1], image=side)
    pair = pair.under(law)
    return pair


def main() -> None:
    """Print a table for every model entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=VOCABULARIES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--shape", help="of 'specbench list shapes', in the place of both")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        _compare(name, options)


def _compare(name: str, options: argparse.Namespace) -> None:
    entry = catalog.load("model", name)
    loader, sampling = entry["loader"], entry["sampling"]
    grid = Grid.from_dict(loader["grid"])
    first, codes = loader.get("first_code", 102_400), loader.get("codes", 16_384)
    law = Law(1.0, sampling.get("top_k"), guidance=Guidance(sampling["cfg_scale"]))
    device = torch.device(options.device)
    made = bodies(body_shape(name, options), codes, first, device)
    codebook = torch.randn(codes, 8, generator=torch.Generator().manual_seed(1))
    pairs = {
        width: pair_of(name, made, Side(grid, first, codebook), law) for width in ("all", "allowed")
    }
    pairs["allowed"].narrow()
    for pair in pairs.values():
        switch(pair, "auto")
    decoders: dict[tuple[str, str], Decoder] = {}
    for method in options.methods:
        for width, pair in pairs.items():
            decoders[method, width] = instantiate(load_method(method)["decoder"])
            decoders[method, width].prepare(pair)
    found: dict[tuple[str, str], list[Generation]] = {key: [] for key in decoders}
    for repeat in range(-1, options.repeats):
        keys = list(decoders)[:: 1 if repeat % 2 else -1]
        for method, width in keys:
            pair = pairs[width]
            assert pair.image is not None
            request = Request(
                tuple(pair.image.encode("")),
                options.tokens,
                law,
                Streams(max(repeat, 0), "picture"),
            )
            pair.settle(len(request.prompt) + options.tokens)
            clock = ProcessorClock() if device.type == "cpu" else clock_for(device)
            generation = decoders[method, width].generate(pair, request, clock)
            if repeat >= 0:
                found[method, width].append(generation)
    _print(name, pairs, options, found)


def _print(
    name: str,
    pairs: dict[str, ModelPair],
    options: argparse.Namespace,
    found: dict[tuple[str, str], list[Generation]],
) -> None:
    print(f"== {name}: {pairs['all'].target.vocab_size} ids, {pairs['allowed'].target.vocab_size}")
    print("   allowed; one round in ms, and tok/s behind the prefill")
    head = f"{'method':14s}{'laws over':>10s}{'tokens':>8s}{'draft':>8s}{'target':>8s}{'host':>8s}"
    print(f"{head}{'share':>7s}{'tok/s':>8s}{'/ ar':>7s}{'/ all':>7s}  tokens equal")
    speeds: dict[tuple[str, str], float] = {}
    for method in options.methods:
        for width in ("all", "allowed"):
            rounds = [r for made in found[method, width] for r in made.rounds[1:]]
            emitted = sum(r.count.emitted for r in rounds) / len(rounds)
            parts = [
                statistics.mean(getattr(r, f"{kind}_ns") / 1e6 for r in rounds)
                for kind in ("draft", "target", "host")
            ]
            speeds[method, width] = speed = 1e3 * emitted / sum(parts)
            plain = speeds.get(("ar", width), float("nan"))
            same = [
                pairs["all"].published(a.tokens) == pairs["allowed"].published(b.tokens)
                for a, b in zip(found[method, "all"], found[method, "allowed"], strict=True)
            ]
            cells = "".join(f"{part:8.2f}" for part in parts)
            print(
                f"{method:14s}{width:>10s}{emitted:8.2f}{cells}{parts[2] / sum(parts):7.0%}"
                f"{speed:8.1f}{speed / plain:7.2f}{speed / speeds[method, 'all']:7.2f}"
                f"  {sum(same)}/{len(same)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
