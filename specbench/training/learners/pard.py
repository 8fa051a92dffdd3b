"""A draft model that learns to guess several tokens in one forward: PARD.

The draft of the model entry is tuned as a whole, on the tokens of the answers; the checkpoint is an
ordinary one whose config.json names the mask token (`pard_token`), as the authors publish it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Room, Sum
from specbench.training.learners.draft_model import DraftModel
from specbench.training.losses.blocks import drop_places, masks_see
from specbench.training.losses.divergences import Distillation


class ParallelDraftModel(DraftModel):
    """A causal language model that reads masks in the place of tokens to guess.

    Args:
        copies: Tokens that it learns to guess in one forward.
        keep: Copy c keeps a share keep^c of the places (conditional drop-token).
        least: But not less than this share.
        mask_token: Id of the mask; null takes the tokenizer's padding.
        labels: "token" learns the next tokens, "law" the target's laws there.
    """

    def __init__(
        self, copies: int, keep: float, least: float, mask_token: int | None, labels: str
    ) -> None:
        super().__init__(
            Distillation("forward_kl", 0.5), on_policy=0.0, student_temperature=1.0, refresh=1
        )
        self._copies, self._kept, self._least = copies, keep, least
        self._mask_token, self._labels = mask_token, labels

    def begin(self, room: Room) -> None:
        """Load the draft."""
        super().begin(room)
        if self._mask_token is None:
            self._mask_token = int(room.frozen.models.tokenizer.pad_token_id)

    def _guesses(self, batch: Batch, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits [N, V] of learned places, their rows and positions, and copies."""
        tokens = batch.tokens
        positions, copies = drop_places(
            tokens.shape[1], self._copies, self._kept, self._least, source
        )
        positions, copies = positions.to(tokens.device), copies.to(tokens.device)
        read = torch.where(copies == 0, tokens[:, positions], self._mask_token)
        hidden = ~masks_see(positions, copies)
        seen = torch.zeros(hidden.shape, device=tokens.device).masked_fill(hidden, -torch.inf)
        body: Any = self.module
        states = body.model(
            input_ids=read,
            position_ids=positions.expand_as(read),
            attention_mask=seen.expand(len(read), 1, -1, -1),
            use_cache=False,
        ).last_hidden_state
        learned = batch.predicting[:, positions]
        rows, places = learned.nonzero(as_tuple=True)
        logits = body.lm_head(states[learned]).float()
        at = torch.stack([rows, positions[places]])
        return logits[:, : self._room.frozen.models.target.vocab_size], at, copies[places]

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the cross-entropy of the places of all copies."""
        logits, (rows, positions), _ = self._guesses(batch, source)
        labels = batch.tokens[rows, positions + 1]
        if self._labels == "law":
            states = batch.states[-1][rows, positions]
            labels = self._room.frozen.logits(states)[:, : logits.shape[-1]].softmax(-1)
        return Sum(F.cross_entropy(logits, labels, reduction="sum"), len(logits))

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield each copy's law beside the target's for the same token."""
        logits, (rows, positions), copies = self._guesses(batch, torch.Generator().manual_seed(0))
        target = self._room.frozen.logits(batch.states[-1][rows, positions])
        for copy in range(self._copies):
            here = copies == copy
            yield Laws(logits[here], target[here, : logits.shape[-1]])

    def write(self, folder: Path) -> None:
        """Write the draft with its mask token."""
        super().write(folder)
        path = folder / "config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings |= {"pard_token": self._mask_token, "spd_type": "pard"}
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
