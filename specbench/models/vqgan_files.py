"""Where the image tokenizer of the Chameleon family lies, and how it is read.

Meta publishes it as `vqgan.yaml` and `vqgan.ckpt` behind a licence form; conversions for
transformers hold the same tensors as `model.safetensors` (leloy/Anole-7b-v0.1-vqvae-hf) or within
the language model's own checkpoint under `model.vqmodel.` (leloy/Anole-7b-v0.1-hf, whose decoder
numbers its levels as Meta's does: transformers, models/anole/modular_anole.py). Lumina-mGPT
publishes none and uses Meta's (Alpha-VLLM/Lumina-mGPT, README, "Preparation").

A missing tokenizer is no error here: decoding needs none. The error waits for whoever asks for
pixels or for the codebook.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from specbench.bounded import read_text
from specbench.errors import ModelError
from specbench.models.checkpoint import Checkpoint
from specbench.models.image_side import PixelDecoder
from specbench.models.pretrained import first_line
from specbench.models.published import find_files
from specbench.models.shards import tensors_below
from specbench.models.state import read_tensors
from specbench.models.vqgan import Vqgan, VqganConfig

FOLDER = "vq"
"""Folder of the image tokenizer inside a language model's."""

_PREFIX = "model.vqmodel."
_CODEBOOK = "quantize.embedding.weight"
_NAMES = (("config.json", "model.safetensors"), ("vqgan.yaml", "vqgan.ckpt"))
_FIX = (
    "Set model.loader.image_tokenizer to a folder with Meta's vqgan.yaml and vqgan.ckpt (from "
    "https://ai.meta.com/resources/models-and-libraries/chameleon-downloads) or to the hub id "
    "leloy/Anole-7b-v0.1-vqvae-hf."
)


def load_pixel_decoder(
    place: str | None,
    revision: str | None,
    files: Checkpoint,
    settings: Any,
    device: torch.device,
) -> PixelDecoder:
    """Load the image tokenizer, or keep the reason why it is not there.

    Args:
        place: A folder or hub id; None for the checkpoint's own.
        revision: Hub revision of `place`, or None.
        files: The language model's checkpoint.
        settings: Its `ChameleonConfig`.
        device: Where pixels are computed.
    """
    try:
        if place is not None:
            model, about = _published(place, revision)
            return _whole(model, device, about)
        folder = Path(files.location) / FOLDER
        if files.local and folder.is_dir():
            model, about = _published(str(folder), None)
            return _whole(model, device, about)
        return _inside(files, settings, device)
    except ModelError as error:
        return PixelDecoder(None, None, error)


def load_vqgan(place: Path, device: torch.device | str = "cpu") -> Vqgan:
    """Load the image tokenizer of a folder for inference in float32.

    Raises:
        ModelError: If a file is missing or does not fit.
    """
    model, _ = _published(str(place), None)
    model.float().to(device).eval().requires_grad_(False)
    return model


def _whole(
    model: Vqgan, device: torch.device, about: Mapping[str, Any] | None = None
) -> PixelDecoder:
    model.float().to(device).eval().requires_grad_(False)
    return PixelDecoder(model.codebook, model.decode, about=about)


def _published(place: str, revision: str | None) -> tuple[Vqgan, dict[str, Any]]:
    """Read the tokenizer of a folder or a hub repository, and say what exactly it is.

    Raises:
        ModelError: If it has neither set of names, or they do not fit.
    """
    folder = Path(place).expanduser()
    names = _NAMES[0]
    if folder.is_dir():
        present = [pair for pair in _NAMES if all((folder / name).is_file() for name in pair)]
        if not present:
            raise ModelError(
                f"'{place}' holds no image tokenizer",
                "it has neither vqgan.yaml with vqgan.ckpt nor config.json with model.safetensors",
                _FIX,
            )
        names = present[0]
    settings, weights = find_files(place, names, revision)
    model = _read_model(settings.fetch())
    model.load_published(read_tensors(weights.fetch()))
    return model, {**weights.describe(), "settings": settings.describe()["digest"]}


def _read_model(path: Path) -> Vqgan:
    """Read a configuration, and make the model that it describes.

    Raises:
        ModelError: If it describes none.
    """
    try:
        text = read_text(path)
        values = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise _describes_none(str(path), error) from error
    return _model_of(values, str(path))


def _model_of(values: Any, source: str) -> Vqgan:
    """Make a model of taming's form, bare or below `model.params`, or of that of transformers.

    Raises:
        ModelError: If it is neither, or no network can be made of its values.
    """
    try:
        if "base_channels" in values:
            return Vqgan(_from_transformers(values))
        return Vqgan(VqganConfig.from_params(values.get("model", {}).get("params", values)))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _describes_none(source, error) from error


def _describes_none(source: str, error: Exception) -> ModelError:
    return ModelError(
        f"'{source}' describes no image tokenizer",
        f"{type(error).__name__}: {first_line(error)}",
        _FIX,
    )


def _from_transformers(values: Mapping[str, Any]) -> VqganConfig:
    """Translate a `ChameleonVQVAEConfig`, whose groups and colours are fixed in the code."""
    return VqganConfig(
        channels=values["base_channels"],
        multipliers=tuple(values["channel_multiplier"]),
        blocks=values["num_res_blocks"],
        attention_at=tuple(values.get("attn_resolutions") or ()),
        middle_attention=values.get("attn_type", "vanilla") == "vanilla",
        resolution=values["resolution"],
        latent_channels=values["latent_channels"],
        codes=values["num_embeddings"],
        code_width=values["embed_dim"],
        image_channels=values.get("in_channels", 3),
    )


def _inside(files: Checkpoint, settings: Any, device: torch.device) -> PixelDecoder:
    """Read what the language model's checkpoint holds: all of it, the codebook, or nothing."""
    tensors = tensors_below(files, _PREFIX)
    lacking = ModelError(
        f"The pixel decoder of '{files.source}' is missing",
        "its checkpoint holds the language model without the image tokenizer's decoder",
        _FIX,
    )
    if "decoder.conv_in.weight" in tensors:
        model = _model_of(settings.vq_config.to_dict(), files.source)
        model.load_published(tensors)
        return _whole(model, device)
    codebook = tensors.get(_CODEBOOK)
    return PixelDecoder(None if codebook is None else codebook.to(device), None, lacking)
