"""Load a target with its draft and tokenizer, in the fastest engine that computes it exactly.

Configurations, weights and tokenizers come through transformers (`models.pretrained`); what runs is
the lean decoder where it supports the architecture, else transformers' module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.base import Model
from specbench.models.causal_lm import CausalLM
from specbench.models.checkpoint import Checkpoint
from specbench.models.checkpoint_files import end_ids
from specbench.models.decoder import LeanDecoder
from specbench.models.defaults import generation_defaults
from specbench.models.heads.load import head_bytes
from specbench.models.lean_weights import supports
from specbench.models.pair import About, ModelPair
from specbench.models.pretrained import listed, read_module, read_settings, read_tokenizer
from specbench.models.room import Room, cache_values
from specbench.schema.model import ModelConfig

SMALL = 500_000_000
"""Parameters below which a CPU decodes in float32 by default."""


def load_pair(config: ModelConfig, *, needs: frozenset[str] = frozenset({"draft"})) -> ModelPair:
    """Load what a model entry names.

    Args:
        config: The model entry.
        needs: What the measured methods need of the models, by the names of
            `MethodConfig.needs`. The draft is left out where no method needs it.

    Raises:
        ModelError: If a checkpoint is missing, does not fit or lacks what is needed, or the
            vocabularies differ.
    """
    device, target_files, draft_files = find_all(config, needs)
    check_needs(target_files, config, needs)
    dtype = pick_dtype(config.dtype, device, target_files)
    tokenizer = load_tokenizer(target_files, config)
    target, leftover = load_model(target_files, config, device, dtype)
    provenance: dict[str, Any] = {"target": describe(target_files, target)}
    notes = leftover_note(target_files, leftover)
    drafts = []
    for role, files in draft_files.items():
        check_vocabularies(tokenizer, load_tokenizer(files, config), config.target, files.source)
        draft, leftover = load_model(files, config, device, dtype)
        draft.mask_token = mask_token(files)
        drafts.append(draft)
        notes += leftover_note(files, leftover)
        provenance[role] = describe(files, draft)
    if config.context is not None:
        target.context = min(target.context, config.context)
    return ModelPair(
        name=config.label,
        target=target,
        draft=drafts[0] if drafts else None,
        tokenizer=tokenizer,
        stop_ids=stop_ids(target_files, tokenizer),
        provenance=provenance,
        more_drafts=tuple(drafts[1:]),
        about=About(
            dtype_reason(config.dtype, device, checkpoints.parameters(target_files)),
            generation_defaults(
                checkpoints.read_settings_file(target_files, "generation_config.json")
            ),
            tuple(notes),
        ),
    )


def leftover_note(files: Checkpoint, leftover: tuple[str, ...]) -> list[str]:
    """Return what to say of weights that a model has no place for."""
    if not leftover:
        return []
    count = f"{len(leftover)} weights" if len(leftover) > 1 else "a weight"
    return [f"'{files.source}' holds {count} that the model does not use: {listed(leftover)}."]


class Found(NamedTuple):
    """Where a model entry's checkpoints are, and where they will run.

    Attributes:
        device: The device.
        target: The target's checkpoint.
        drafts: The drafts', by the role that names each in results.
    """

    device: torch.device
    target: Checkpoint
    drafts: dict[str, Checkpoint]


def find_all(config: ModelConfig, needs: frozenset[str], tokens: int | None = None) -> Found:
    """Find what a model entry names, before anything is loaded.

    Args:
        config: The model entry.
        needs: What the methods need of the models; drafts are left out where none needs them.
        tokens: Of a picture; None for text.

    Raises:
        ModelError: If a checkpoint is missing, or all of them do not fit in memory with their
            caches.
    """
    device = pick_device(config.device)
    target = checkpoints.find(config.target, config.target_revision)
    drafts = find_drafts(config, needs)
    if not config.device_map:
        sizes = [checkpoints.local_bytes(files) for files in (target, *drafts.values())]
        local = sum(size for size in sizes if size is not None) / 1e9
        head = head_bytes(config) / 1e9 if "head" in needs else 0.0
        room, dtype = Room.of(config, tokens), pick_dtype(config.dtype, device, target)
        values = sum(cache_values(read_settings(files)) for files in (target, *drafts.values()))
        checkpoints.check_memory(
            (config.weights_gb or local) + head,
            device,
            config.name,
            room.bytes(values, dtype) / 1e9,
            room.describe(),
        )
    return Found(device, target, drafts)


def find_drafts(config: ModelConfig, needs: frozenset[str]) -> dict[str, Checkpoint]:
    """Resolve the drafts that methods need, by the role that names each in results.

    Raises:
        ModelError: If one of them is not there, or cannot draft in parallel as a method needs.
    """
    if "parallel_draft" in needs:
        return {"draft": _find_parallel(config)}
    if config.draft is None or "draft" not in needs:
        return {}
    found = {"draft": checkpoints.find(config.draft, config.draft_revision)}
    for number, place in enumerate(config.more_drafts, start=2):
        found[f"draft_{number}"] = _find_at(place)
    return found


def _find_at(place: str) -> Checkpoint:
    """Resolve a checkpoint whose revision stands behind an @."""
    source, _, revision = place.partition("@")
    return checkpoints.find(source, revision or None)


def _find_parallel(config: ModelConfig) -> Checkpoint:
    """Resolve the entry's draft, if it drafts in parallel, else its `parallel_draft`."""
    lacking = "the model has none"
    if config.draft is not None:
        files = checkpoints.find(config.draft, config.draft_revision)
        if mask_token(files) is not None:
            return files
        lacking = f"'{config.draft}' names no mask token (pard_token) in its config.json"
    if config.parallel_draft is not None:
        files = _find_at(config.parallel_draft)
        if mask_token(files) is not None:
            return files
        lacking = f"'{config.parallel_draft}' names no mask token (pard_token) in its config.json"
    raise ModelError(
        f"The method needs a draft of '{config.label}' that says several tokens in one forward",
        lacking,
        "Add model.draft= with a PARD draft of the family (amd/PARD-Llama-3.2-1B, "
        "amd/PARD-Qwen3-0.6B), or choose another method.",
    )


def mask_token(files: Checkpoint) -> int | None:
    """Return the token that a checkpoint was trained to see where the next ones are not known.

    Raises:
        ModelError: If it is no token of the checkpoint.
    """
    settings = checkpoints.read_settings_file(files, "config.json")
    found = settings.get("pard_token", settings.get("ptd_token_id"))
    if found is None:
        return None
    width = settings.get("vocab_size")
    if not isinstance(found, int) or not isinstance(width, int) or not 0 <= found < width:
        raise ModelError(
            f"'{files.source}' cannot draft in parallel",
            f"its config.json names the mask token {found!r} of {width} tokens",
            "Set pard_token in it to the token that it was trained with.",
        )
    return found


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device, else the CPU.

    Raises:
        ModelError: If a CUDA device is named and there is none.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(
            f"There is no device '{name}'",
            f"torch sees {count} CUDA devices",
            "Use model.device=auto or model.device=cpu.",
        )
    return device


def pick_dtype(name: str, device: torch.device, files: Checkpoint) -> torch.dtype:
    """Return the compute dtype; "auto" goes by device and size, so that runs stay comparable.

    The size is the number of parameters, whatever they are stored in. On CUDA it is bfloat16, or
    float16 where that is missing. On a CPU large models are bound by memory and run in bfloat16;
    those under `SMALL` parameters run in float32, in which a lossless method gives the very
    tokens of plain decoding (`docs/speed.md` has the price: nothing on a processor without
    bfloat16 instructions, a fifth to two fifths of the speed on one with them).
    """
    count = checkpoints.parameters(files)
    return dtype_of(name, device, small=count is not None and count < SMALL)


def dtype_reason(name: str, device: torch.device, parameters: int | None) -> str:
    """Return why a model runs in its dtype, in a few words; nothing where it was asked for.

    Args:
        name: A dtype's name, or "auto".
        device: Where the model computes.
        parameters: Its parameters, where they are known.
    """
    if name != "auto":
        return ""
    if device.type == "cuda":
        return "auto: a GPU"
    if parameters is None:
        return "auto: of unknown size"
    side = "under" if parameters < SMALL else "not under"
    return f"auto: {_millions(parameters)} parameters, {side} {_millions(SMALL)}"


def _millions(count: int) -> str:
    return f"{count / 1e9:.3g}B" if count >= 999_500_000 else f"{count / 1e6:.3g}M"


def dtype_of(name: str, device: torch.device, *, small: bool) -> torch.dtype:
    """Return the dtype of a name; for "auto" the one that `pick_dtype` describes.

    Args:
        name: A dtype's name, or "auto".
        device: Where the model computes.
        small: Whether it has fewer parameters than `SMALL`.
    """
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32 if small else torch.bfloat16


_ABILITIES = {
    "tree_mask": "judge a tree of drafts in one forward",
    "layer_skip": "leave some of its layers out",
    "hidden_states": "show its hidden states",
    "image": "draw pictures",
    "features": "take states in the place of tokens",
}
"""What a model that offers a capability can do."""


def check_needs(files: Checkpoint, config: ModelConfig, needs: frozenset[str]) -> None:
    """Refuse, before any weights are loaded, a target that cannot do what a method needs.

    Raises:
        ModelError: If the engine that would run the checkpoint lacks a capability.
    """
    wanted = needs - {"draft", "parallel_draft", "head"}
    if not wanted:
        return
    settings = read_settings(files)
    lean = _runs_lean(config, settings)
    able = LeanDecoder.capabilities if lean else CausalLM.able(settings)
    missing = sorted(wanted - able)
    if missing:
        engine = LeanDecoder.engine if lean else CausalLM.engine
        raise ModelError(
            f"The model '{config.label}' cannot {' or '.join(_ABILITIES[n] for n in missing)}, "
            "as the method needs",
            f"its architecture '{settings.model_type}' runs in the {engine} engine, which does "
            f"not offer {'that' if len(missing) == 1 else 'those'} for it",
            "Choose another model or a method without that need (specbench list methods).",
        )


def load_tokenizer(files: Checkpoint, config: ModelConfig) -> Any:
    """Load a checkpoint's tokenizer and set the chat template that the entry asks for.

    Raises:
        ModelError: If the checkpoint holds none, or one that cannot be read.
    """
    return read_tokenizer(files, template=config.chat_template, chat=config.chat is not False)


def load_model(
    files: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Model, tuple[str, ...]]:
    """Load one checkpoint into the engine that the entry asks for.

    Returns:
        The model, and the names of the checkpoint's weights that it has no place for.

    Raises:
        ModelError: If the checkpoint cannot be read, lacks weights, or the engine cannot run it.
    """
    placement: Mapping[str, Any] = {"device_map": config.device_map} if config.device_map else {}
    settings = read_settings(files)
    check_quantised(files, settings, config.engine)
    lean = _runs_lean(config, settings)
    if not lean:
        CausalLM.check(settings, files.source)
    module, leftover = read_module(
        AutoModelForCausalLM, files, settings, dtype, placement=placement
    )
    if config.engine == "lean" and not supports(settings):
        raise ModelError(
            f"The lean engine cannot run '{files.source}'",
            f"it computes Llama-shaped models, and this is '{module.config.model_type}'",
            "Use model.engine=auto.",
        )
    if lean:
        return LeanDecoder.of(module, files.source, device, dtype), leftover
    return CausalLM(module if config.device_map else module.to(device), files.source), leftover


def _runs_lean(config: ModelConfig, settings: Any) -> bool:
    return config.engine != "transformers" and not config.device_map and supports(settings)


def check_quantised(files: Checkpoint, settings: Any, engine: str) -> None:
    """Refuse packed weights, which only transformers' modules can compute.

    Args:
        files: The checkpoint.
        settings: Its configuration.
        engine: The engine that the entry asks for.

    Raises:
        ModelError: If the weights are quantised and the entry does not ask for transformers.
    """
    packed = getattr(settings, "quantization_config", None)
    if packed is None or engine == "transformers":
        return
    kind = packed.get("quant_method") if isinstance(packed, Mapping) else packed.quant_method
    raise ModelError(
        f"The weights of '{files.source}' are quantised ({getattr(kind, 'value', kind)})",
        "the engines of specbench compute with plain weights of 16 or 32 bits",
        "Name the checkpoint that it was made from, in 16 bits. model.engine=transformers leaves "
        "it to transformers, which needs the packages of that format; it is not tested here.",
    )


def check_vocabularies(target: Any, draft: Any, target_name: str, draft_name: str) -> None:
    """Refuse a draft whose token ids mean something else than the target's.

    A few ids that one of them lacks are fine (`models.aligned`): padding, and tokens that a
    fine-tuned target added.

    Raises:
        ModelError: If the vocabularies differ.
    """
    ours, theirs = target.get_vocab(), draft.get_vocab()
    differing = [token for token, index in theirs.items() if ours.get(token, index) != index]
    missing = len(set(ours) ^ set(theirs))
    if differing or missing > 0.01 * len(ours):
        raise ModelError(
            f"'{draft_name}' cannot draft for '{target_name}'",
            f"their vocabularies differ ({len(differing)} tokens have another id, {missing} are "
            "in one only)",
            "Choose a draft of the same family, or a method without a draft such as method=pld.",
        )


def stop_ids(files: Checkpoint, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer.

    They are the tokenizer's, and those of generation_config.json; where that names none, those of
    config.json, as in transformers' `generate`.
    """
    names = ("generation_config.json", "config.json")
    ids = end_ids(*(checkpoints.read_settings_file(files, name) for name in names))
    own = tokenizer.eos_token_id
    return ids if own is None else ids | {int(own)}


def describe(files: Checkpoint, model: Model) -> dict[str, Any]:
    """Return what a result file records of one checkpoint."""
    return {
        **checkpoints.describe(files),
        "engine": model.engine,
        "dtype": str(model.dtype).removeprefix("torch."),
        "vocab_size": model.vocab_size,
    }
