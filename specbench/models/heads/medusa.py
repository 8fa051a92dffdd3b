"""Medusa: heads that each guess one further token from the target's last state alone.

Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads";
FasterDecoding/Medusa, medusa/model/medusa_model.py. Head k (from 0) reads the final, normed state
at position t and guesses the token at t + 2 + k: residual blocks x + silu(W x + b), then an LM head
of its own. Heads of `version` "2" (medusa_model_legacy.py) have no LM head and use the target's.

Published layouts, by the names of the release's `state_dict`: `0.0.linear.weight`,
`0.0.linear.bias`, `0.1.weight` (the LM head behind the last block) in medusa_lm_head.pt or
.safetensors; behind `medusa_head.` where one checkpoint holds target and heads (Medusa 1.0). The
config of the published Vicuna heads names 2 heads where the file holds 5 (a comment of the release
says so), so heads are counted in the file.

Shapes: K heads, C channels, V token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specbench.cache import Cache
from specbench.models.base import CAUSAL, Model, View
from specbench.models.heads.base import HeadFiles, TargetShape
from specbench.models.heads.body import check_shares
from specbench.models.heads.level import LevelHead, randomised
from specbench.models.linear import linear

_BUNDLED = "medusa_head."


@dataclass(frozen=True)
class MedusaSettings:
    """The sizes of Medusa's heads.

    Attributes:
        heads: K; a tree uses as many as it is deep.
        layers: Residual blocks of a head.
        channels: C.
        vocabulary: V; None where the heads use the target's LM head.
    """

    heads: int
    layers: int
    channels: int
    vocabulary: int | None

    @classmethod
    def of(cls, files: HeadFiles) -> MedusaSettings:
        """Return the sizes of a published head, by its settings and the shapes of its weights.

        Raises:
            ModelError: If the settings are none.
        """
        layers = files.settings.get("medusa_num_layers", 1)
        if type(layers) is not int or layers < 1:
            raise files.unfit(f"its config.json has medusa_num_layers={layers!r}")
        prefix = "" if "0.0.linear.weight" in files.shapes else _BUNDLED
        first = files.shapes.get(f"{prefix}0.0.linear.weight", ())
        if len(first) != 2:
            raise files.unfit(
                f"it lacks the weight '{prefix}0.0.linear.weight', or it is no matrix"
            )
        heads = 0
        while f"{prefix}{heads}.0.linear.weight" in files.shapes:
            heads += 1
        own = [files.shapes.get(f"{prefix}{head}.{layers}.weight", ()) for head in range(heads)]
        return cls(heads, layers, first[1], next((shape[0] for shape in own if shape), None))


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """x + silu(W x + b), the identity before it is trained.

    Args:
        channels: C.
        inputs: Vectors that are read side by side, [..., inputs C]. Where there are several, a
            trained product R x + r takes the place of x.
    """

    def __init__(self, channels: int, inputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs * channels, channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.res_connection = (
            nn.Linear(inputs * channels, channels) if inputs > 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., inputs C] to [..., C]."""
        return self.res_connection(x) + F.silu(self.linear(x))


class MedusaHeads(nn.Module):  # type: ignore[misc]
    """The heads under their published names: what is read, trained and written.

    Args:
        settings: Their sizes.
        lm_head: [V, C], the target's, as which heads of their own begin.
    """

    def __init__(self, settings: MedusaSettings, lm_head: Tensor | None = None) -> None:
        super().__init__()
        self.settings = settings
        for head in range(settings.heads):
            parts: list[nn.Module] = [
                ResidualBlock(settings.channels) for _ in range(settings.layers)
            ]
            if settings.vocabulary is not None:
                own = nn.Linear(settings.channels, settings.vocabulary, bias=False)
                if lm_head is not None:
                    own.weight.data.copy_(lm_head)
                parts.append(own)
            self.add_module(str(head), nn.Sequential(*parts))

    def level(self, head: int, states: Tensor, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits [..., V] of one head; see `forward`."""
        made: Tensor = self.get_submodule(str(head))(states)
        return lm_head(made) if self.settings.vocabulary is None else made

    def forward(self, states: Tensor, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what each head makes of states: the arithmetic of the release, with gradients.

        Args:
            states: [..., C] final, normed states of the target.
            lm_head: The target's, [..., C] to [..., V]; used by heads that have none.

        Returns:
            Logits [K, ..., V]; those of head k at position t are of the token at t + 2 + k.
        """
        heads = range(self.settings.heads)
        return torch.stack([self.level(head, states, lm_head) for head in heads])


class MedusaHead(LevelHead):
    """Medusa's heads where they draft: all in one product, their LM heads in another.

    Fed one state, [1, 1, C], its logits are those of every level, [1, K, V].

    Args:
        heads: On the target's device, in its dtype.
        target: Whose states they read.
        name: What they are called.
        lm_head: [1, K, C] to [1, K, V], the target's; used by heads that have none.
    """

    family = "medusa"
    taps = (-1,)

    def __init__(
        self, heads: MedusaHeads, target: Model, name: str, lm_head: Callable[[Tensor], Tensor]
    ) -> None:
        settings = heads.settings
        super().__init__(name, target, settings.heads)
        parts = [list(head) for head in heads.children()]
        blocks = [[part.linear for part in each[: settings.layers]] for each in parts]
        self._channels = settings.channels
        self._first = linear(
            torch.cat([each[0].weight.detach() for each in blocks]),
            torch.cat([each[0].bias.detach() for each in blocks]),
        )
        self._later = [
            (
                torch.stack([each[layer].weight.detach().t() for each in blocks]),
                torch.stack([each[layer].bias.detach()[None] for each in blocks]),
            )
            for layer in range(1, settings.layers)
        ]
        self._lm_head = lm_head
        self._own: Tensor | None = None
        if settings.vocabulary is not None:
            self._own = torch.stack([each[-1].weight.detach().t() for each in parts]).contiguous()

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether files hold Medusa's first block."""
        return any(f"{prefix}0.0.linear.weight" in files.shapes for prefix in ("", _BUNDLED))

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse heads of another width or vocabulary, or files that lack weights."""
        settings = MedusaSettings.of(files)
        files.fits("hidden width", settings.channels, target.width, target)
        if settings.vocabulary is not None:
            files.fits("vocabulary", settings.vocabulary, target.vocab_size, target)
        prefix = "" if "0.0.linear.weight" in files.shapes else _BUNDLED
        with torch.device("meta"):
            wanted = MedusaHeads(settings).state_dict()
        for name, tensor in wanted.items():
            files.expect(prefix + name, *tensor.shape)

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights.

        Raises:
            ModelError: If they use an LM head that the target's engine does not hand out.
        """
        settings = MedusaSettings.of(files)
        if settings.vocabulary is None:
            check_shares(target)
        state = files.read()
        tensors = state.below("" if "0.0.linear.weight" in state else _BUNDLED)
        heads = MedusaHeads(settings)
        heads.load_state_dict({name: tensors[name] for name in heads.state_dict()})
        return cls(heads.to(target.device, target.dtype), target, files.source, target.head)

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return two heads of two blocks with LM heads of their own."""
        settings = MedusaSettings(2, 2, width, target.vocab_size)
        heads = MedusaHeads(settings)
        randomised(heads, seed)
        return cls(heads.to(target.device, target.dtype), target, "random heads", target.head)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Return the logits of every level, [1, K, V], after one state, [1, 1, C]."""
        return self._guess(inputs[0]).transpose(0, 1)

    @torch.inference_mode()
    def along(self, states: Tensor, tokens: Tensor) -> list[Tensor]:
        """Return each level's logits along a known text; see `LevelHead.along`."""
        logits, last = self._guess(states[0]), tokens.shape[1] - 2
        return [logits[level, : last - level] for level in range(min(self.levels, last))]

    def _guess(self, states: Tensor) -> Tensor:
        """Return the logits of every level, [K, T, V], after states [T, C]."""
        made = self._first(states).view(states.shape[0], -1, self._channels).transpose(0, 1)
        x = states + F.silu(made)
        for weight, bias in self._later:
            x = x + F.silu(torch.baddbmm(bias, x, weight))
        return self._lm_head(x) if self._own is None else torch.bmm(x, self._own)
