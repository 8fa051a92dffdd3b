"""Stop where the draft model is not confident."""

from __future__ import annotations

from torch import Tensor

from specbench.decoding.lengths.base import LengthPolicy
from specbench.errors import ConfigError


class ConfidenceStop(LengthPolicy):
    """End the draft with the first token whose probability is below a threshold.

    The common stop of self-speculation and cascades: Draft & Verify (Zhang et al. 2023), Kangaroo
    (Liu et al. 2024), SWIFT (Xia et al. 2024), BiLD (Kim et al. 2023), and assisted generation in
    transformers without scikit-learn (`assistant_confidence_threshold`, after Mamou et al. 2024,
    "Dynamic Speculation Lookahead"; with it the threshold moves, see `assisted.Assisted`).

    As in the codes of the first, third and last, the probability is that of the drawn token. With
    `keep_last` off it is the largest one: a token must not be dropped for what it is. For a greedy
    draft the two are the same.

    Args:
        threshold: Stop below this probability, in [0, 1]; 0 never stops.
        max_length: Most tokens of a round.
        keep_last: Whether the unconfident token is still proposed; BiLD drops it.
        raw: Whether the probability is the draft's softmax, at temperature 1 and with nothing cut
            off, as in the codes of Draft & Verify (decoding.py), SWIFT (model/swift/utils.py) and
            BiLD, which decodes greedily; transformers takes the law that tokens are drawn from
            (`ConfidenceCriteria` is given the processed scores).

    Raises:
        ConfigError: If a value is out of range.
    """

    watches = True

    def __init__(
        self, threshold: float, max_length: int, keep_last: bool = True, raw: bool = False
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(
                f"A confidence threshold of {threshold:g} is not possible",
                "It is compared with a probability of the draft",
                "Choose a number from 0 (never stop) to 1.",
            )
        check_cap(max_length)
        self.keep_last = keep_last
        self.raw = raw
        self.watches = threshold > 0
        self._threshold = threshold
        self._max_length = max_length

    @property
    def threshold(self) -> float:
        """The probability below which a draft ends."""
        return self._threshold

    def limit(self) -> int:
        """Return the most tokens of a round."""
        return self._max_length

    def measure(self, law: Tensor, token: Tensor | None) -> Tensor:
        """Return the drawn token's probability, or the largest one."""
        return law.amax() if token is None else law[0].gather(0, token)[0]

    def ends(self, measured: float) -> bool:
        """Say whether the draft is unconfident."""
        return measured < self.threshold


class AdaptiveConfidence(ConfidenceStop):
    """A confidence threshold that follows the acceptance of the rounds before.

    Draft & Verify (Zhang et al. 2023, "Draft & Verify: Lossless Large Language Model
    Acceleration via Self-Speculative Decoding", section 4.2), with the values of the released
    `decoding.py`. A running mean m of the accepted share is kept. Where it is below the target
    acceptance the threshold aims higher by one step, else lower, or stays where the draft was
    ended by its greatest length; the threshold itself moves slowly towards that aim. The released
    code begins a request with m = 0, and at a threshold of 0.8 for greedy and 0.5 for sampled
    decoding.

    Args:
        threshold: The first threshold, in [0, 1].
        max_length: Most tokens of a round.
        keep_last: Whether the unconfident token is still proposed.
        raw: Whether the draft's softmax is judged, as in the released code.
        target_acceptance: Acceptance rate that the threshold aims for, in (0, 1].
        step: How far the aim lies from the present threshold.
        memory: Weight of earlier rounds in the running acceptance, in [0, 1).
        inertia: Weight of the present threshold against its aim, in [0, 1]; 1 never moves it.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self,
        threshold: float = 0.8,
        max_length: int = 8,
        keep_last: bool = True,
        raw: bool = True,
        target_acceptance: float = 0.9,
        step: float = 0.01,
        memory: float = 0.5,
        inertia: float = 0.9,
    ) -> None:
        super().__init__(threshold, max_length, keep_last, raw)
        for name, value, least, most in (
            ("target_acceptance", target_acceptance, 0, 1),
            ("step", step, 0, 1),
            ("memory", memory, 0, 0.999),
            ("inertia", inertia, 0, 1),
        ):
            if not least <= value <= most:
                raise ConfigError(
                    f"A '{name}' of {value:g} is not possible",
                    "It weighs probabilities",
                    f"Choose a number from {least} to {most}.",
                )
        self.watches = True
        self._target_acceptance = target_acceptance
        self._step = step
        self._memory = memory
        self._inertia = inertia
        self._acceptance = 0.0

    def update(self, proposed: int, accepted: int) -> None:
        """Move the threshold after a round; rounds without a draft say nothing."""
        if proposed == 0:
            return
        kept = self._memory
        self._acceptance = kept * self._acceptance + (1 - kept) * accepted / proposed
        aim = self._threshold
        if self._acceptance < self._target_acceptance:
            aim += self._step
        elif proposed < self._max_length:
            aim -= self._step
        moved = self._inertia * self._threshold + (1 - self._inertia) * aim
        self._threshold = min(max(moved, 0.0), 1.0)


def check_cap(max_length: int) -> None:
    """Refuse a greatest draft length that cannot be.

    Raises:
        ConfigError: If it is less than one.
    """
    if max_length < 1:
        raise ConfigError(
            f"A greatest draft length of {max_length} is not possible",
            "A round proposes at least one token",
            "Choose 1 or more.",
        )
