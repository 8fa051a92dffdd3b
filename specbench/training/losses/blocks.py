"""Who sees whom, and what counts, where several tokens are guessed in one forward.

PARD (An et al. 2025; as in the authors' pard/pard_train.py) reads a text several times at once: in
copy c every token is a mask, and the mask at position t guesses token t + 1 from the true tokens up
to t - c and from the c - 1 masks between. Conditional drop-token keeps fewer places of later
copies, each behind a kept place of the copy before, so that the masks that it sees are there.

DFlash (Chen et al. 2026; as in SpecForge's specforge/core/dflash.py) reads blocks behind random
anchors. A block begins with the anchor's token, sees the context before the anchor and all of
itself; a token counts exp(-(k - 1) / decay) at offset k.

Shapes: B rows, S tokens of a text, N places, A anchors, K tokens of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor


def drop_places(
    length: int, copies: int, keep: float, least: float, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose the places of every copy: all of the first, fewer of each further one.

    Args:
        length: S.
        copies: How many; one more than the masks behind a true token.
        keep: Copy c keeps a share keep^c of the places.
        least: But not less than this share.
        source: Random numbers.

    Returns:
        Positions and copies of the places, [N] each.
    """
    chosen = torch.arange(length)
    positions, numbers = [chosen], [torch.zeros_like(chosen)]
    for copy in range(1, copies):
        behind = chosen[chosen + 1 < length] + 1
        count = min(int(length * max(keep**copy, least)), len(behind))
        chosen = behind[torch.randperm(len(behind), generator=source)[:count]].sort().values
        positions.append(chosen)
        numbers.append(torch.full_like(chosen, copy))
    return torch.cat(positions), torch.cat(numbers)


def masks_see(positions: Tensor, copies: Tensor) -> Tensor:
    """Return which places each place sees, [N, N] bool.

    Args:
        positions: [N] of each place.
        copies: [N] the copy that it belongs to; places of copy 0 are true tokens.
    """
    behind = positions[:, None] - positions
    deeper = copies[:, None] - copies
    true = (copies == 0) & (behind >= copies[:, None])
    return true | ((behind == deeper) & (deeper >= 0))


def random_anchors(learned: Tensor, most: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose anchors among learned tokens whose next one is learned too.

    Args:
        learned: [B, S] bool.
        most: A, at most.
        source: Random numbers.

    Returns:
        Positions of the anchors, [B, A] in order, and which of them there are, [B, A] bool.
    """
    possible = learned[:, :-1] & learned[:, 1:]
    order = torch.rand(possible.shape, generator=source).to(possible.device)
    order = order.masked_fill(~possible, 2.0)
    count = min(most, int(possible.sum(1).max()))
    drawn, anchors = order.sort(1)
    anchors, place = anchors[:, :count].sort(1)
    return anchors, (drawn[:, :count] < 2).gather(1, place)


def blocks_see(anchors: Tensor, length: int, block: int) -> Tensor:
    """Return what each block token sees of the context and of all block tokens.

    Args:
        anchors: [B, A].
        length: S, tokens of the context.
        block: K.

    Returns:
        [B, A K, S + A K] bool.
    """
    rows, count = anchors.shape
    context = torch.arange(length, device=anchors.device) < anchors[..., None]
    context = context[:, :, None].expand(-1, -1, block, -1).reshape(rows, count * block, length)
    own = torch.eye(count, dtype=torch.bool, device=anchors.device)
    own = own.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return torch.cat([context, own.expand(rows, -1, -1)], -1)


def offset_weights(block: int, decay: float) -> Tensor:
    """Return the weight of each token of a block, [K]: 0 for the anchor, 1 on average else."""
    weights = torch.exp(-(torch.arange(block) - 1).clamp(min=0) / decay)
    weights[0] = 0
    return weights * ((block - 1) / weights.sum())
