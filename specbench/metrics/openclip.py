"""CLIP through open_clip: published weights, a local checkpoint, or the embedded world's model."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from specbench.errors import ConfigError, ModelError, did_you_mean
from specbench.metrics.features import pick_device
from specbench.metrics.weights import EMBEDDED, first_line, option, reach_hub, resolve

_HUB_FILE = "open_clip_model.safetensors"
_UNLOADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    pickle.UnpicklingError,
    SafetensorError,
)


class OpenClip:
    """A CLIP model that gives unit embeddings of pictures and texts.

    Args:
        metric: The metric that uses it, for messages.
        model: open_clip's name of the architecture ("ViT-B-32"), or a folder in open_clip's format
            as `embedded:NAME` or a path.
        pretrained: open_clip's tag of the weights; not used with a folder.
        checkpoint: A local weights file of that architecture; with it, nothing is fetched.
        device: Where it runs; "auto" takes a GPU where there is one.
        batch: Pictures or texts in one forward.
    """

    def __init__(
        self,
        metric: str,
        model: str,
        pretrained: str | None,
        checkpoint: str | None,
        device: str = "auto",
        batch: int = 64,
    ) -> None:
        self._metric, self._name, self._tag, self._file = metric, model, pretrained, checkpoint
        self._device, self._batch = pick_device(device), batch
        self._model: Any = None
        self._transform: Any = None
        self._tokenize: Any = None
        origin = pretrained or "" if self._is_builtin() else ""
        if checkpoint is not None:
            origin = Path(checkpoint).name
        self.protocol = f"open_clip {model} ({origin})" if origin else f"open_clip {model}"

    def prepare(self) -> None:
        """Load model, preprocessing and tokenizer; open_clip fetches what it lacks.

        Raises:
            ConfigError: If open_clip has no such architecture or weights.
            ModelError: If the weights can be neither found nor fetched.
        """
        if self._model is not None:
            return
        import open_clip  # type: ignore[import-untyped]

        name, pretrained, quick = self._name, self._tag, False
        if self._is_builtin():
            name = name.replace("/", "-")
            quick = self._check_names(open_clip, name)
            if self._file is not None:
                key = "checkpoint"
                pretrained = str(resolve(self._file, self._metric, option(self._metric, key)))
        else:
            folder = resolve(name, self._metric, option(self._metric, "model"))
            name, pretrained = f"local-dir:{folder}", None
        try:
            with _own_root_logger(), self._reached(open_clip):
                model, transform = open_clip.create_model_from_pretrained(
                    name,
                    pretrained,
                    device=self._device,
                    force_quick_gelu=quick,
                    return_transform=True,
                )
                self._tokenize = open_clip.get_tokenizer(name)
        except _UNLOADABLE as error:
            raise ModelError(
                f"{self._metric} cannot load {self._file or self._name}",
                first_line(error),
                "It must be a checkpoint of that architecture in open_clip's format.",
            ) from error
        self._model, self._transform = model.eval().requires_grad_(False), transform

    @property
    def scale(self) -> float:
        """The learned factor on cosines that turns them into logits."""
        return float(self._model.logit_scale.exp())

    def pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return unit embeddings [n, D] of pictures uint8 [H, W, 3]."""
        assert self._model is not None, "prepare() comes first"
        parts = []
        for start in range(0, len(pictures), self._batch):
            batch = pictures[start : start + self._batch]
            pixels = torch.stack([self._transform(Image.fromarray(picture)) for picture in batch])
            with torch.inference_mode():
                parts.append(self._model.encode_image(pixels.to(self._device), normalize=True))
        return torch.cat(parts).float().cpu()

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit embeddings [n, D] of texts, cut where the model's context ends."""
        assert self._model is not None, "prepare() comes first"
        parts = []
        for start in range(0, len(texts), self._batch):
            tokens = self._tokenize(list(texts[start : start + self._batch]))
            with torch.inference_mode():
                parts.append(self._model.encode_text(tokens.to(self._device), normalize=True))
        return torch.cat(parts).float().cpu()

    def _is_builtin(self) -> bool:
        return not (self._name.startswith(EMBEDDED) or Path(self._name).expanduser().is_dir())

    def _check_names(self, open_clip: Any, name: str) -> bool:
        """Refuse unknown names; return whether the weights were trained with QuickGELU."""
        known = open_clip.list_models()
        if name not in known:
            raise ConfigError(
                f"open_clip has no model '{self._name}'",
                "and there is no such folder",
                did_you_mean(name, known),
            )
        if self._tag is None:
            if self._file is None:
                raise ConfigError(
                    f"{self._metric} names no weights for {self._name}",
                    f"set {option(self._metric, 'pretrained')} or "
                    f"{option(self._metric, 'checkpoint')}",
                )
            return False
        tags = open_clip.list_pretrained_tags_by_model(name)
        if self._tag not in tags:
            raise ConfigError(
                f"open_clip has no weights '{self._tag}' of {self._name}",
                f"it has {', '.join(tags) or 'none'}",
                did_you_mean(self._tag, tags),
            )
        return bool(open_clip.get_pretrained_cfg(name, self._tag).get("quick_gelu", False))

    def _reached(self, open_clip: Any) -> contextlib.AbstractContextManager[None]:
        """Make sure that what is not local can be had."""
        if not self._is_builtin() or self._file is not None:
            return contextlib.nullcontext()
        config = open_clip.get_pretrained_cfg(self._name.replace("/", "-"), self._tag)
        hub = str(config.get("hf_hub") or "").rstrip("/")
        if not hub:
            return contextlib.nullcontext()
        return reach_hub(self._metric, hub, _HUB_FILE, "checkpoint")


@contextlib.contextmanager
def _own_root_logger() -> Iterator[None]:
    """Keep open_clip, which logs through the root logger, from installing a handler there."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
