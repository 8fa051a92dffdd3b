"""Which engine runs a lean model's forwards: eager, a native step, graphs, or a compiled step.

Loaders make lean decoders and know nothing of this; one call afterwards gives every model of a
pair the engine that the run asks for. All engines share weights, cache and port, so a method
cannot tell them apart.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from specbench.errors import ModelError
from specbench.models.base import Model, Wrapper
from specbench.models.compiled import CompiledCapture, missing_compiler
from specbench.models.decoder import LeanDecoder
from specbench.models.graphs import graphs_of
from specbench.models.native.check import native_decoder
from specbench.models.native.decoder import NativeDecoder
from specbench.models.native.library import Unavailable
from specbench.models.ops import CompilerOps, Ops
from specbench.models.pair import ModelPair
from specbench.models.static import StaticDecoder

EAGER, GRAPH, KERNELS, COMPILE, AUTO = "eager", "graph", "kernels", "compile", "auto"
NATIVE = "native"

Lean = LeanDecoder | StaticDecoder | NativeDecoder
"""A lean model in one of its engines."""


def check_engine(engine: str, device: torch.device, name: str, *, lean: bool = True) -> None:
    """Refuse, before anything is loaded, an engine that cannot run on a device.

    Args:
        engine: "auto", "eager", "native", "graph", "kernels" or "compile".
        device: Where the models will compute.
        name: What to call the model.
        lean: Whether the lean decoder may run it.

    Raises:
        ModelError: If it cannot.
    """
    if engine in (AUTO, EAGER):
        return
    if not lean:
        raise ModelError(
            f"execution={engine} cannot run '{name}'",
            "its forwards belong to transformers' modules, and only the lean decoder's are static",
            "Use execution=auto, or leave out model.engine and model.device_map.",
        )
    if engine == NATIVE and device.type != "cpu":
        raise ModelError(
            f"execution=native cannot run '{name}'",
            f"it is a step for CPUs, and the model computes on {device}",
            "Use execution=auto, which captures graphs on a GPU.",
        )
    if engine in (GRAPH, KERNELS) and device.type != "cuda":
        raise ModelError(
            f"execution={engine} needs a CUDA device",
            f"'{name}' computes on {device}, where there are no graphs to capture",
            "Use execution=auto, which captures graphs where it can.",
        )
    if engine == KERNELS:
        from specbench.models import kernels

        obstacle = kernels.obstacle(device)
        if obstacle is not None:
            raise ModelError(
                f"execution=kernels cannot run '{name}' here",
                obstacle,
                "Use execution=graph, which captures the library's operations.",
            )
    missing = missing_compiler(device) if engine == COMPILE else None
    if missing is not None:
        raise ModelError(
            "execution=compile cannot compile here",
            missing,
            "Install a C++ compiler (g++), or use execution=auto.",
        )


def switch(models: ModelPair, engine: str) -> None:
    """Let all models of a pair run in an engine; "auto" takes the fastest that each can.

    Args:
        models: The pair, as its loader made it.
        engine: "auto", "eager", "native", "graph", "kernels" or "compile".

    Raises:
        ModelError: If a model cannot run in the engine that is asked for by name.
    """
    slower: list[str] = []
    models.target = _switched(models.target, engine, slower)
    if models.draft is not None:
        models.draft = _switched(models.draft, engine, slower)
    models.more_drafts = tuple(_switched(draft, engine, slower) for draft in models.more_drafts)
    if slower:
        notes = (*models.about.notes, *dict.fromkeys(slower))
        models.about = replace(models.about, notes=notes)
    roles = {"target": models.target, "draft": models.draft}
    roles |= {f"draft_{number}": draft for number, draft in enumerate(models.more_drafts, start=2)}
    provenance = dict(models.provenance)
    for role, model in roles.items():
        found = provenance.get(role)
        if model is not None and found and model.engine != found.get("engine", LeanDecoder.engine):
            provenance[role] = {**found, "engine": model.engine}
    models.provenance = provenance


def _switched(model: Model, engine: str, slower: list[str]) -> Model:
    """Return a model in an engine; what "auto" had to do without is added to `slower`."""
    if isinstance(model, Lean):
        if engine == AUTO and model.device.type == "cpu":
            return _native_or_eager(_lean_of(model), slower)
        return run_by(model, engine)
    if isinstance(model, Wrapper):
        model.take_body(_switched(model.body, engine, slower))
    else:
        check_engine(engine, model.device, model.name, lean=False)
    return model


def _native_or_eager(lean: LeanDecoder, slower: list[str]) -> Lean:
    """Let the native step take a model over where it can."""
    try:
        return native_decoder(lean, release=True)
    except Unavailable as obstacle:
        slower.append(
            "The models run without the native step, so that plain decoding is a slower baseline "
            f"than it could be: {obstacle}."
        )
        return lean


def _lean_of(model: Lean) -> LeanDecoder:
    return model if isinstance(model, LeanDecoder) else model.body


def run_by(model: Lean, engine: str) -> Lean:
    """Return a decoder of the same weights that an engine runs.

    Args:
        model: The decoder, in any engine.
        engine: "auto", "eager", "native", "graph", "kernels" or "compile". "auto" is "graph" on a
            CUDA device, else "native" where that can be had, else "eager".

    Raises:
        ModelError: If its device has no such engine.
    """
    lean = _lean_of(model)
    device = lean.device
    check_engine(engine, device, lean.name)
    if engine == AUTO and device.type != "cuda":
        return _native_or_eager(lean, [])
    if engine == EAGER:
        return lean
    if engine == NATIVE:
        try:
            return native_decoder(lean)
        except Unavailable as obstacle:
            raise ModelError(
                f"execution=native cannot run '{lean.name}' here",
                str(obstacle),
                "Use execution=auto, which runs eagerly where there is no native step.",
            ) from obstacle
    if engine == COMPILE:
        return StaticDecoder(lean, CompilerOps(), CompiledCapture(device), "lean compile")
    if engine in (AUTO, GRAPH):
        return StaticDecoder(lean, Ops(), graphs_of(device), "lean graph")
    from specbench.models.kernels.ops import KernelOps

    return StaticDecoder(lean, KernelOps(), graphs_of(device), "lean kernels")
