"""Which engine runs a lean model's forwards: eager, captured graphs, or a compiled step.

Loaders make lean decoders and know nothing of this; one call afterwards gives every model of a
pair the engine that the run asks for. All engines share weights, cache and port, so a method
cannot tell them apart.
"""

from __future__ import annotations

import torch

from specbench.errors import ModelError
from specbench.models.base import Model, Wrapper
from specbench.models.compiled import CompiledCapture, missing_compiler
from specbench.models.decoder import LeanDecoder
from specbench.models.graphs import graphs_of
from specbench.models.ops import CompilerOps, Ops
from specbench.models.pair import ModelPair
from specbench.models.static import StaticDecoder

EAGER, GRAPH, KERNELS, COMPILE, AUTO = "eager", "graph", "kernels", "compile", "auto"


def check_engine(engine: str, device: torch.device, name: str, *, lean: bool = True) -> None:
    """Refuse, before anything is loaded, an engine that cannot run on a device.

    Args:
        engine: "auto", "eager", "graph", "kernels" or "compile".
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
        engine: "auto", "eager", "graph", "kernels" or "compile".

    Raises:
        ModelError: If a model cannot run in the engine that is asked for by name.
    """
    models.target = _switched(models.target, engine)
    if models.draft is not None:
        models.draft = _switched(models.draft, engine)
    models.more_drafts = tuple(_switched(draft, engine) for draft in models.more_drafts)
    roles = {"target": models.target, "draft": models.draft}
    roles |= {f"draft_{number}": draft for number, draft in enumerate(models.more_drafts, start=2)}
    provenance = dict(models.provenance)
    for role, model in roles.items():
        found = provenance.get(role)
        if model is not None and found and model.engine != found.get("engine", LeanDecoder.engine):
            provenance[role] = {**found, "engine": model.engine}
    models.provenance = provenance


def _switched(model: Model, engine: str) -> Model:
    if isinstance(model, LeanDecoder | StaticDecoder):
        return run_by(model, engine)
    if isinstance(model, Wrapper):
        model.take_body(_switched(model.body, engine))
    else:
        check_engine(engine, model.device, model.name, lean=False)
    return model


def run_by(model: LeanDecoder | StaticDecoder, engine: str) -> LeanDecoder | StaticDecoder:
    """Return a decoder of the same weights that an engine runs.

    Args:
        model: The decoder, in any engine.
        engine: "auto", "eager", "graph", "kernels" or "compile". "auto" is
            "graph" on a CUDA device, else "eager".

    Raises:
        ModelError: If its device has no such engine.
    """
    lean = model.body if isinstance(model, StaticDecoder) else model
    device = lean.device
    check_engine(engine, device, lean.name)
    if engine == AUTO:
        engine = GRAPH if device.type == "cuda" else EAGER
    if engine == EAGER:
        return lean
    if engine == COMPILE:
        return StaticDecoder(lean, CompilerOps(), CompiledCapture(device), "lean compile")
    if engine == GRAPH:
        return StaticDecoder(lean, Ops(), graphs_of(device), "lean graph")
    from specbench.models.kernels.ops import KernelOps

    return StaticDecoder(lean, KernelOps(), graphs_of(device), "lean kernels")
