"""The target law: how logits become the distribution that a decoder must follow.

Order: guidance and grid constraints (`models.guided`) -> repetition penalty on the node's own
history -> temperature -> top-k -> top-p -> probabilities. Temperature 0 is argmax with the lowest
index on ties. Draft and target each have a law; the hash of the target's stands in every result
file, and speedups across differing hashes are refused.

Shapes: B rows, N nodes, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from specbench.finite import argmax, note
from specbench.transfer import moved

OWN = "own"
"""The unconditional row that a model's entry states."""

_LAW_VERSION = 1
_SMALL_VOCABULARY = 4096
_SORTED = 256
"""Where a row holds less than this many times k logits, the k-th largest is found by sorting."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: conditional logits moved away from unconditional ones.

    With two rows the mixed logits are u + s (c - u). With three rows, for models that condition
    on a text and on an image part (Anole), they are u + image_scale (i - u) + s (c - i). Mixing
    comes before every other step of the law.

    Attributes:
        scale: s; 1 is the conditional law alone.
        schedule: How s grows over the picture: "constant", "linear" (from 1 at the first code to
            s at the last) or "cosine" (the same ends, along half a cosine).
        image_scale: Weight of the image condition for models of three rows, else None.
        unconditional: Which unconditional row; one of `schema.config.Unconditional`.

    Guidance: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance".
    """

    scale: float
    schedule: str = "constant"
    image_scale: float | None = None
    unconditional: str = OWN

    @property
    def rows(self) -> int:
        """Number of rows that a model computes: 1, 2 or 3."""
        if self.image_scale is not None:
            return 3
        return 1 if self.scale == 1 else 2

    def scales(self, count: int) -> list[float]:
        """Return the scale of each of `count` codes, first to last."""
        if self.schedule == "constant":
            return [self.scale] * count
        shares = [index / max(count - 1, 1) for index in range(count)]
        if self.schedule == "cosine":
            shares = [(1 - math.cos(math.pi * share)) / 2 for share in shares]
        return [1 + (self.scale - 1) * share for share in shares]


@dataclass(frozen=True)
class Law:
    """A processed next-token law.

    Attributes:
        temperature: 0 for argmax, else the divisor of the logits.
        top_k: Keep the k largest logits (ties with the k-th are kept), or None.
        top_p: Keep the smallest set of most probable tokens whose mass reaches p, or None.
        repetition_penalty: Divides positive and multiplies negative logits of every token in
            the node's history, prompt included (Keskar et al. 2019, CTRL); 1 changes nothing.
        guidance: How conditioning rows are mixed, for image models; None for text.
        text_top_k: Like `top_k`, for the text tokens of a sequence that also holds a picture; at
            most `top_k`. The image model's port applies it.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    guidance: Guidance | None = None
    text_top_k: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the law is a point mass on the argmax."""
        return self.temperature == 0

    @property
    def plain(self) -> bool:
        """Whether the law is the softmax of the penalised logits and nothing else."""
        cut = self.top_k is not None or (self.top_p is not None and self.top_p < 1)
        return self.temperature == 1 and not cut

    @property
    def needs_history(self) -> bool:
        """Whether the law depends on the tokens before the node."""
        return self.repetition_penalty != 1.0

    def describe(self) -> str:
        """Return the law in words, for tables and files."""
        if self.greedy:
            parts = ["greedy"]
        else:
            parts = [f"temperature {self.temperature:g}"]
            if self.top_k:
                parts.append(f"top-k {self.top_k}")
            if self.top_p is not None and self.top_p < 1:
                parts.append(f"top-p {self.top_p:g}")
        if self.needs_history:
            parts.append(f"repetition penalty {self.repetition_penalty:g}")
        if self.guidance is not None:
            parts.append(_describe_guidance(self.guidance))
        return ", ".join(parts)

    def digest(self) -> str:
        """Return a hash that is equal exactly for laws that are equal as functions."""
        values = asdict(self)
        for key in ("guidance", "text_top_k"):  # absent from the laws of text
            if values[key] is None:
                del values[key]
        if values.get("guidance", {}).get("unconditional") == OWN:
            del values["guidance"]["unconditional"]  # as before there were others
        if self.greedy:
            values["top_k"] = values["top_p"] = None
        if self.top_p is not None and self.top_p >= 1:
            values["top_p"] = None
        values["version"] = _LAW_VERSION
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def penalise(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """Apply the repetition penalty.

        Args:
            logits: [..., V].
            seen: [..., V] bool, True for tokens in the node's history; None without a penalty.
        """
        if seen is None or not self.needs_history:
            return logits
        penalty = self.repetition_penalty
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(seen, penalised, logits)

    def argmax(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the most probable token at each node, [...], lowest index on ties."""
        return argmax(self.penalise(logits, seen))

    def softmax(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the softmax of the penalised logits, whatever the law is, [..., V].

        At temperature 1 and with nothing cut off: what most authors call a model's confidence.
        """
        logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        return self.penalise(logits, seen).softmax(-1)

    def probabilities(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the processed distribution, [..., V], in float32 or wider.

        Args:
            logits: [..., V] of any floating dtype.
            seen: [..., V] bool history mask, or None.
        """
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        logits = self.penalise(logits, seen)
        if self.greedy:
            return torch.zeros_like(logits).scatter_(-1, argmax(logits).unsqueeze(-1), 1.0)
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits = _without_small(logits, self.top_k)
        probabilities = logits.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            ordered = ordered.masked_fill(before >= self.top_p, 0.0)
            probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities


def _without_small(logits: Tensor, k: int) -> Tensor:
    """Return the k largest logits of each row, and those tied with the k-th; else minus infinity.

    On a CPU, numpy's vectorised sort of a row takes a fifth of the time in which torch selects
    thousands of logits, and arithmetic with zeros and ones a quarter of a masked fill's: 1 / kept
    - 1 is 0 where a logit is kept and infinite elsewhere.
    """
    if logits.device.type != "cpu" or _SORTED * k <= logits.shape[-1]:
        threshold = logits.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    else:
        threshold = torch.from_numpy(np.sort(logits.numpy(), axis=-1)[..., -k, None])
    if logits.device.type != "cpu":
        return logits.masked_fill(logits < threshold, -torch.inf)
    kept = torch.ge(logits, threshold, out=torch.empty_like(logits))
    return logits - kept.reciprocal_().sub_(1)


def _describe_guidance(guidance: Guidance) -> str:
    words = f"guidance {guidance.scale:g}"
    if guidance.schedule != "constant":
        words += f" ({guidance.schedule})"
    if guidance.image_scale is not None:
        words += f", image guidance {guidance.image_scale:g}"
    if guidance.unconditional != OWN:
        words += f", unconditional row {guidance.unconditional}"
    return words


def draw(probabilities: Tensor, uniform: Tensor | float) -> Tensor:
    """Draw one token from each distribution by inverting its cumulative sum.

    A token of probability zero is never drawn. Unnormalised weights are allowed.

    Args:
        probabilities: [..., V], non-negative.
        uniform: [...] numbers in [0, 1), or one number for all.

    Returns:
        Token ids, [...], int64.
    """
    cumulative = _cumulative(probabilities)
    threshold = cumulative[..., -1:] * (
        uniform.unsqueeze(-1).double() if isinstance(uniform, Tensor) else uniform
    )
    note(threshold)
    index = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return index.clamp_(max=probabilities.shape[-1] - 1)


def _cumulative(probabilities: Tensor) -> Tensor:
    """Return the cumulative sums of each row in float64.

    In place over a copy: two buffers whose addresses differ by a multiple of a page, as those of
    wide laws do, make a sum up to four times slower on a CPU.
    """
    return probabilities.to(torch.float64, copy=True).cumsum_(-1)


def draw_distinct(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw k distinct tokens from each distribution, one after another without replacement.

    Each draw follows the distribution without the tokens drawn before, renormalised; the order
    of the draws has the law of sorting by perturbed log-probabilities (Gumbel top-k). Where the
    support is exhausted, the remaining draws repeat the last token of the vocabulary.

    Args:
        probabilities: [..., V], non-negative, unnormalised weights allowed.
        uniforms: [..., k] independent numbers in [0, 1).

    Returns:
        Token ids in draw order, [..., k], int64.
    """
    if probabilities.shape[-1] <= _SMALL_VOCABULARY:
        return _draw_and_remove(probabilities, uniforms)
    return _draw_around(probabilities, uniforms)


def _draw_and_remove(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw distinct tokens by setting each drawn one to zero: few calls, each over V."""
    left = probabilities.clone()
    drawn = []
    for index in range(uniforms.shape[-1]):
        token = draw(left, uniforms[..., index])
        left.scatter_(-1, token.unsqueeze(-1), 0.0)
        drawn.append(token)
    return torch.stack(drawn, -1)


def _draw_around(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw distinct tokens around the intervals of the drawn ones: one pass over V in all."""
    cumulative = _cumulative(probabilities)
    width = probabilities.shape[-1]
    support = (probabilities > 0).sum(-1)
    starts = ends = torch.empty(0)
    drawn: list[Tensor] = []
    for index in range(uniforms.shape[-1]):
        threshold = cumulative[..., -1] * uniforms[..., index]
        if drawn:  # the removed intervals are cut out of the line, and the number is put back
            begun, order = starts.sort(-1)
            mass = (ends - starts).gather(-1, order)
            removed = mass.cumsum(-1)
            threshold = (cumulative[..., -1] - removed[..., -1]) * uniforms[..., index]
            passed = threshold.unsqueeze(-1) >= begun - (removed - mass)
            threshold = threshold + (mass * passed).sum(-1)
        note(threshold)
        token = torch.searchsorted(cumulative, threshold.unsqueeze(-1), right=True)
        token = torch.where(
            (support <= index).unsqueeze(-1), width - 1, token.clamp_(max=width - 1)
        )
        end = cumulative.gather(-1, token)
        start = cumulative.gather(-1, (token - 1).clamp_(min=0)).masked_fill_(token == 0, 0.0)
        starts = torch.cat([starts, start], -1) if drawn else start
        ends = torch.cat([ends, end], -1) if drawn else end
        drawn.append(token)
    return torch.cat(drawn, -1)


def happens(probability: Tensor, uniform: Tensor) -> Tensor:
    """Say which events happen: each with its probability (above 1 counts as 1).

    Args:
        probability: [...], non-negative.
        uniform: [...] independent numbers in [0, 1).

    Returns:
        [...] bool.
    """
    return uniform < probability


class History:
    """Which tokens each row has seen, kept on the device and extended by commits.

    Holds nothing when the law does not look at history.

    Args:
        law: The law that may need it.
        prompt: [B, T] token ids.
        vocab_size: Width of the law. Tokens of a prompt that have no column change nothing.
    """

    def __init__(self, law: Law, prompt: Tensor, vocab_size: int) -> None:
        self._seen: Tensor | None = None
        if law.needs_history:
            self._seen = seen_in(prompt, vocab_size)

    def commit(self, tokens: Tensor) -> None:
        """Add committed tokens, [B, T]."""
        if self._seen is not None:
            self._seen.scatter_(1, tokens, True)

    def now(self) -> Tensor | None:
        """Return the mask after all committed tokens, [B, V], or None."""
        return self._seen

    def along(self, tokens: Tensor, ancestors: Tensor | None) -> Tensor | None:
        """Return each node's own history: the committed tokens and its path.

        Args:
            tokens: [B, N] draft tokens.
            ancestors: [N + 1, N + 1] bool with the root as node 0, row i True at i's ancestors
                and at i; None for a chain.

        Returns:
            [B, N + 1, V] bool, or None where the law needs no history.
        """
        if self._seen is None:
            return None
        seen = self._seen[:, None].repeat(1, tokens.shape[1] + 1, 1)
        seen[:, 1:].scatter_(2, tokens[:, _paths(tokens, ancestors)], True)
        return seen


def seen_in(prompt: Tensor, vocab_size: int) -> Tensor:
    """Return which columns of a law, [B, V], a prompt [B, T] holds.

    What an image model cannot draw stands in prompts and has no column (`models.numbering`).
    """
    seen = torch.zeros(prompt.shape[0], vocab_size + 1, dtype=torch.bool, device=prompt.device)
    return seen.scatter_(1, prompt.clamp(max=vocab_size), True)[:, :vocab_size]


def _paths(tokens: Tensor, ancestors: Tensor | None) -> Tensor:
    """Return the nodes of each node's path, padded with the node itself, [N, N].

    A table of fixed size instead of a list of pairs: the device need not be asked how many.
    """
    nodes = torch.arange(tokens.shape[1], device=tokens.device)
    if ancestors is None:
        return torch.minimum(nodes, nodes[:, None])
    return torch.where(moved(ancestors, tokens.device)[1:, 1:], nodes, nodes[:, None])
