"""What `bench-engine` found, and what it is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from specbench.runner.bandwidth import Bandwidth
from specbench.runner.engine.timing import Spread

FORMAT = 1
"""Version of the JSON that `record` gives."""

SHARE_OF_LIMIT = 0.75
TIMES_TRANSFORMERS = 3.0
VERIFYING = 1.15
HOST_SHARE = 0.05
PREDICTION = 0.10
VERIFIED_COUNTS = (8, 16)
COMPARED_SHAPE = "llama_1b"
"""The shape on which the ratio to transformers is asked."""

MET, MISSED, NOT_ASKED = "met", "missed", "not asked"


@dataclass(frozen=True)
class Plain:
    """Plain decoding in one engine.

    Attributes:
        engine: "graph", "kernels", "compile", "eager", or "transformers".
        seconds: Of a token, after the first.
        host_share: Share of that time in which the device had no work, or None where one time
            line serves both, or nobody looked.
        identical: Whether the tokens are those of the first engine.
    """

    engine: str
    seconds: Spread
    host_share: float | None
    identical: bool


@dataclass(frozen=True)
class Verifying:
    """The cost of a forward over several tokens in one engine.

    Attributes:
        engine: The engine.
        seconds: Of a forward over so many tokens in causal order.
        tree_tokens: Tokens of the tree, its root included.
        tree_seconds: Of a forward over the tree.
    """

    engine: str
    seconds: dict[int, Spread]
    tree_tokens: int
    tree_seconds: Spread

    def ratio(self, count: int) -> float:
        """Return the cost of `count` tokens over that of one."""
        return self.seconds[count].median / self.seconds[1].median

    @property
    def tree_ratio(self) -> float:
        """The cost of the tree over that of one token."""
        return self.tree_seconds.median / self.seconds[1].median


@dataclass(frozen=True)
class Synthetic:
    """Drafts of a set acceptance against plain decoding, in one engine.

    Attributes:
        engine: The engine.
        acceptance: Chance that a draft token is accepted.
        draft_length: Draft tokens of a round.
        expected_tokens: (1 - a^(K+1)) / (1 - a), tokens of a round.
        tokens_per_round: What there were.
        rounds: How many rounds there were.
        observed: Speedup of decoding, prefill apart.
        predicted: What acceptance and the costs of the single steps predict; see `predicted`.
        draft_seconds: Of one draft step.
        verify_seconds: Of the target's forward over the draft.
        plain_seconds: Of a plain step.
        host_share: Of the rounds' time, or None on a CPU.
        ties: Share of the tokens at which the verifying forward would have said something else.
    """

    engine: str
    acceptance: float
    draft_length: int
    expected_tokens: float
    tokens_per_round: float
    rounds: int
    observed: Spread
    predicted: float
    draft_seconds: float
    verify_seconds: float
    plain_seconds: float
    host_share: float | None
    ties: float

    @property
    def difference(self) -> float:
        """Observed over predicted, less one: below zero is overhead that nobody predicted."""
        return self.observed.median / self.predicted - 1


class Goal(NamedTuple):
    """What the engine is held against.

    Attributes:
        name: What is asked, in words.
        bound: The goal, in words.
        found: What was measured, in words.
        verdict: "met", "missed" or "not asked".
    """

    name: str
    bound: str
    found: str
    verdict: str


@dataclass(frozen=True)
class Setting:
    """What was measured.

    Attributes:
        shape: Name of the target's shape.
        draft_shape: Name of the draft's.
        parameters: The target's weights.
        dtype: Number format.
        device: Name of the hardware.
        device_type: "cuda" or "cpu".
        context: Tokens in the cache at the start.
        tokens: Tokens that are decoded.
        rounds: How often everything was measured.
        seed: Of weights and prompts.
        bytes_per_token: Weights that a token is multiplied with, and the cache at half way.
        provenance: Versions and details of the machine.
    """

    shape: str
    draft_shape: str
    parameters: int
    dtype: str
    device: str
    device_type: str
    context: int
    tokens: int
    rounds: int
    seed: int
    bytes_per_token: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """All that one shape gave.

    Attributes:
        setting: What was measured.
        bandwidth: The device's copy bandwidth.
        plain: Plain decoding, the main engine first.
        verifying: Forwards over several tokens, the main engine first.
        synthetic: Drafts of a set acceptance.
        notes: What was left out, as sentences.
    """

    setting: Setting
    bandwidth: Bandwidth
    plain: tuple[Plain, ...]
    verifying: tuple[Verifying, ...]
    synthetic: Synthetic | None
    notes: tuple[str, ...] = ()

    def share_of_limit(self, plain: Plain) -> float:
        """Return the bytes that plain decoding read a second over the copy bandwidth."""
        rate = self.setting.bytes_per_token / plain.seconds.median
        return rate / self.bandwidth.bytes_per_second

    @property
    def theirs(self) -> Plain | None:
        """Transformers' own generation, where it was measured."""
        return next((each for each in self.plain if each.engine == "transformers"), None)

    def times_transformers(self, plain: Plain) -> float | None:
        """Return how many times as fast as transformers' generation it is."""
        theirs = self.theirs
        return None if theirs is None else theirs.seconds.median / plain.seconds.median

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What is asked of the main engine, and whether it is reached."""
        main = self.plain[0]
        ratio = self.times_transformers(main)
        ratio = ratio if self.setting.shape == COMPARED_SHAPE else None
        share = self.share_of_limit(main)
        worst = None
        if self.verifying:
            counts = [count for count in VERIFIED_COUNTS if count in self.verifying[0].seconds]
            worst = max((self.verifying[0].ratio(count) for count in counts), default=None)
        gap = self.synthetic.difference if self.synthetic else None
        return (
            self._goal("share of the copy bandwidth", share, SHARE_OF_LIMIT, "%", least=True),
            self._goal("plain decoding over generate", ratio, TIMES_TRANSFORMERS, "x", least=True),
            self._goal("verifying 8 or 16 tokens over one", worst, VERIFYING, "x"),
            self._goal("host share of plain decoding", main.host_share, HOST_SHARE, "%"),
            self._goal("speedup against the prediction", gap, PREDICTION, "±"),
        )

    def _goal(
        self, name: str, value: float | None, bound: float, unit: str, least: bool = False
    ) -> Goal:
        sign = {"±": "within ±"}.get(unit, "at least " if least else "at most ")
        found = "–" if value is None else _number(value, unit)
        asked = f"{sign}{_number(bound, '%' if unit == '±' else unit)}"
        if value is None or self.setting.device_type != "cuda":
            return Goal(name, asked, found, NOT_ASKED)
        size = abs(value) if unit == "±" else value
        reached = size >= bound if least else size <= bound
        return Goal(name, asked, found, MET if reached else MISSED)

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values that JSON can hold, derived ones included."""
        plain = [
            {
                **asdict(each),
                "seconds": each.seconds._asdict(),
                "tokens_per_second": each.seconds.inverse(1.0)._asdict(),
                "share_of_limit": self.share_of_limit(each),
                "times_transformers": self.times_transformers(each),
            }
            for each in self.plain
        ]
        verifying = [
            {
                "engine": each.engine,
                "seconds": {str(count): taken._asdict() for count, taken in each.seconds.items()},
                "ratio": {str(count): each.ratio(count) for count in each.seconds},
                "tree_tokens": each.tree_tokens,
                "tree_seconds": each.tree_seconds._asdict(),
                "tree_ratio": each.tree_ratio,
            }
            for each in self.verifying
        ]
        synthetic = None
        if self.synthetic is not None:
            synthetic = {
                **asdict(self.synthetic),
                "observed": self.synthetic.observed._asdict(),
                "difference": self.synthetic.difference,
            }
        return {
            "format": FORMAT,
            "setting": asdict(self.setting),
            "bandwidth": self.bandwidth._asdict(),
            "plain": plain,
            "verifying": verifying,
            "synthetic": synthetic,
            "goals": [goal._asdict() for goal in self.goals],
            "notes": list(self.notes),
        }


def _number(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.2f}x"
    return f"{value:+.1%}" if unit == "±" else f"{value:.1%}" if value % 0.01 else f"{value:.0%}"
