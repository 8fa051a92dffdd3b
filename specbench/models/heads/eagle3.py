"""EAGLE-3's head: three layers of the target, one block of its own, and a vocabulary of its own.

Li et al. 2025, "EAGLE-3: Scaling up Inference Acceleration of Large Language Models via
Training-Time Test"; read in the release, github.com/SafeAILab/EAGLE (eagle/model/cnets.py), in
sgl-project/SpecForge (specforge/modeling/draft/llama3_eagle.py, algorithms/model_providers.py) and
vllm-project/speculators (src/speculators/models/eagle3). The states of a low, a middle and a high
layer become one feature of C channels (`fc`). The block's attention reads the normed embedding and
the normed feature side by side, 2 C channels; its residual is the feature. What the block makes is
the next feature; a norm and an LM head over part of the vocabulary make its logits, and `d2t` holds
what is added to a draft's id to get the target's.

The layouts differ in their settings. Layer ids: the release taps blocks 2, L // 2 and L - 3 before
they run; SpecForge names outputs of blocks, by default the same ones; speculators names blocks
before they run. `norm_output` means in SpecForge that the LM head reads normed features (by default
it does), in speculators that these are also what is fed back.

Shapes: T tokens, C channels of the head, V ids of the target, K of the head, L target layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.models.aligned import AlignedDraft
from specbench.models.base import CAUSAL, Model, View
from specbench.models.heads.base import FeatureHead, HeadFiles, TargetShape, uniform
from specbench.models.heads.body import EMBEDDING, BlockSettings, embedding_of, read_block
from specbench.models.lean_weights import projection
from specbench.models.norm import rms_norm
from specbench.models.state import State

_QUERY = "self_attn.q_proj.weight"


class Eagle3Settings:
    """What a head's config.json says, in any of the three layouts.

    Args:
        settings: The keys.
        layers: L.

    Attributes:
        first: What the names of the first block's weights begin with.
        block: The settings of its blocks.
        draft_vocabulary: K.
        taps: The target's states that are joined.
        norm_before_residual: Whether the residual is the normed feature.
        norm_before_fc: Whether the joined states are normed together.
        fc_norm: Whether each state is normed alone.
        norm_logits: Whether the LM head reads normed features.
        norm_output: Whether normed features are fed back.
    """

    def __init__(self, settings: Mapping[str, Any], layers: int) -> None:
        spec = settings.get("speculators_model_type") is not None
        self.first = "layers.0." if spec else "midlayer."
        self.block = BlockSettings(settings["transformer_layer_config"] if spec else settings)
        self.draft_vocabulary = int(settings.get("draft_vocab_size") or self.block.vocab_size)
        ids = settings if spec else settings.get("eagle_config") or {}
        named = ids.get("eagle_aux_hidden_state_layer_ids")
        before = named if spec else [each + 1 for each in named] if named else None
        self.taps = tuple(each - 1 for each in before or (2, layers // 2, layers - 3))
        self.norm_before_residual = bool(spec and settings.get("norm_before_residual"))
        self.norm_before_fc = bool(spec and settings.get("norm_before_fc"))
        self.fc_norm = bool(settings.get("fc_norm"))
        self.norm_logits = spec or bool(settings.get("norm_output", True))
        self.norm_output = bool(spec and settings.get("norm_output"))

    @classmethod
    def of(cls, files: HeadFiles, layers: int) -> Eagle3Settings:
        """Return the settings of a head's config.json.

        Raises:
            ModelError: If they are none of an EAGLE-3 head.
        """
        try:
            return cls(files.settings, layers)
        except Exception as error:  # transformers checks by several means
            why = f"its config.json is none of an EAGLE-3 head ({type(error).__name__}: {error})"
            raise files.unfit(" ".join(why.split())) from error


class Eagle3Head(FeatureHead):
    """EAGLE-3's drafter behind one target.

    Args:
        settings: Its settings.
        state: Its weights.
        target: The model that it drafts for.
        name: What it is called.
    """

    family = "eagle3"

    def __init__(self, settings: Eagle3Settings, state: State, target: Model, name: str) -> None:
        place = {"device": target.device, "dtype": target.dtype}
        block = settings.block
        blocks = [
            read_block(state, f"layers.{index}.", "input_layernorm", target, block)
            for index in range(1, block.layers)
        ]
        blocks.insert(0, read_block(state, settings.first, None, target, block))

        def norm(weight: str) -> Tensor:
            return state[f"{weight}.weight"].to(**place)

        body = block.body(
            embedding_of(state, target),
            blocks,
            norm("norm") if settings.norm_logits else None,
            projection(state["lm_head.weight"], **place),
            target,
            name,
        )
        super().__init__(body, target)
        self.taps = settings.taps
        self.made = -1 if settings.norm_output else block.layers - 1
        self._epsilon = block.epsilon
        self._fc = projection(state["fc.weight"], **place)
        self._embedding_norm = norm(f"{settings.first}input_layernorm")
        self._feature_norm = norm(f"{settings.first}hidden_norm")
        self._norms_residual = settings.norm_before_residual
        self._joined_norm = norm("input_norm") if settings.norm_before_fc else None
        taps = range(len(settings.taps)) if settings.fc_norm else ()
        self._state_norms = [norm(f"fc_norm.{index}") for index in taps]
        ids = target_ids(settings, state)
        self._drafts = body if ids is None else AlignedDraft(body, target.vocab_size, ids.tolist())

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether the files hold a first block that norms a feature of its own."""
        norms = (f"{first}hidden_norm.weight" for first in ("midlayer.", "layers.0."))
        return "fc.weight" in files.shapes and any(norm in files.shapes for norm in norms)

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse a head of other widths, layers or ids, or one that lacks weights."""
        settings = Eagle3Settings.of(files, target.layers)
        block, taps = settings.block, settings.taps
        files.fits("vocabulary", block.vocab_size, target.vocab_size, target)
        states = files.settings.get("target_hidden_size") or block.width
        files.fits("width of the target's states", int(states), target.width, target)
        if not all(0 <= tap < target.layers for tap in taps):
            named = ", ".join(map(str, taps))
            why = f"it reads the outputs of blocks {named}, and the target has {target.layers}"
            raise files.unfit(why, target)
        width = block.width
        files.expect("fc.weight", width, len(taps) * target.width)
        for index in range(len(taps) if settings.fc_norm else 0):
            files.expect(f"fc_norm.{index}.weight", target.width)
        if settings.norm_before_fc:
            files.expect("input_norm.weight", len(taps) * target.width)
        files.expect("lm_head.weight", settings.draft_vocabulary, width)
        for name in ("norm", f"{settings.first}hidden_norm", f"{settings.first}input_layernorm"):
            files.expect(f"{name}.weight", width)
        block.check_block(files, settings.first, 2 * width)
        for index in range(1, block.layers):
            block.check_block(files, f"layers.{index}.", width)
        if EMBEDDING in files.shapes or width != target.width:
            files.expect(EMBEDDING, target.vocab_size, width)
        if settings.draft_vocabulary != target.vocab_size:
            files.expect("d2t", settings.draft_vocabulary)
            ids = target_ids(settings, State({"d2t": files.one("d2t")}, files.weights[0]))
            assert ids is not None
            if bool(((ids < 0) | (ids >= target.vocab_size)).any()) or len(ids.unique()) < len(ids):
                raise files.unfit("its 'd2t' leads outside of the vocabulary or twice to one id")

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights; a missing embedding is the target's."""
        settings = Eagle3Settings.of(files, target.layers)
        return cls(settings, files.read(), target, files.source)

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return a head of one small block over all ids of the target but the last."""
        draw = torch.Generator().manual_seed(seed)
        known = max(target.vocab_size - 1, 1)
        small = BlockSettings.small(width, target.vocab_size).config.to_dict()
        ids = {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}}
        settings = Eagle3Settings({**small, **ids, "draft_vocab_size": known}, target.layers)
        tensors = settings.block.random_block("midlayer.", 2 * width, draw)
        for name in ("norm", "midlayer.hidden_norm", "midlayer.input_layernorm"):
            tensors[f"{name}.weight"] = torch.ones(width, dtype=torch.float64)
        tensors[EMBEDDING] = uniform(draw, target.vocab_size, width)
        tensors["fc.weight"] = uniform(draw, width, 3 * width)
        tensors["lm_head.weight"] = 4 * uniform(draw, known, width)
        tensors["d2t"] = torch.zeros(known, dtype=torch.int64)
        return cls(settings, State(tensors, Path("random")), target, "random head")

    def features(self, states: tuple[Tensor, ...]) -> Tensor:
        """Return what `fc` makes of the tapped states side by side, [1, T, C]."""
        if self._state_norms:
            pairs = zip(states, self._state_norms, strict=True)
            states = tuple(rms_norm(state, weight, self._epsilon) for state, weight in pairs)
        joined = torch.cat(states, -1)
        if self._joined_norm is not None:
            joined = rms_norm(joined, self._joined_norm, self._epsilon)
        return self._fc(joined.flatten(0, 1)).view(*joined.shape[:2], -1)

    def inputs(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Return residual, normed embedding and normed feature side by side, [1, T, 3 C]."""
        embedded = rms_norm(self.body.embed(tokens), self._embedding_norm, self._epsilon)
        normed = rms_norm(features, self._feature_norm, self._epsilon)
        residual = normed if self._norms_residual else features
        return torch.cat([residual, embedded, normed], -1)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed entries; the logits of ids that the head lacks are minus infinity."""
        return self._drafts.forward(inputs, cache, view)


def target_ids(settings: Eagle3Settings, state: State) -> Tensor | None:
    """Return the target's id of each of the head's, [K]; None where they are the same."""
    if settings.draft_vocabulary == settings.block.vocab_size:
        return None
    offsets = state["d2t"].long()
    return offsets + torch.arange(len(offsets))
