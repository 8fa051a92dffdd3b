"""Self-drafting with a set of skipped sublayers that is searched while the text is decoded.

Xia et al. 2024, "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference Acceleration",
section 4.1. Before a decoding step one candidate set is tried: the skipped model reads the
tokens that were just generated, all in one forward, and its score is the share of them that it
would have said itself. A candidate that beats the best score so far replaces the set in use. The
search costs time, and that time belongs to the method: it lies inside the timed region.

Read in the release (github.com/hemingkx/SWIFT, model/swift/utils.py,
evaluation_llama/inference_swift.py, eval_llama.sh): candidates are random but for every 25th,
which Bayesian optimisation suggests; the first and the last block are never touched; the search
begins with every second block, whose own score is not taken; it ends for good above a score of
0.93, after 300 candidates in a row without gain, or after 1000 candidates.

Three things differ. The release reads the first 51 tokens of the answer, behind a copy of the
prompt's keys and values; here it is the last ones, as the paper says, and nothing is copied (see
`agreement`). The release's search goes on from one request to the next; here that is so where a
run carries state, else each sample begins anew. And it waits for two tokens more of the answer
before the first candidate, and ends after 1001 of them and not 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from specbench.decoding.drafters.base import Drafting, Plan, Prefill
from specbench.decoding.drafters.self_skip import SelfSkip, SkipDrafting
from specbench.decoding.search.bayesian import BayesianSearch
from specbench.decoding.search.sublayers import Sublayers
from specbench.decoding.session import Role, Session
from specbench.decoding.tree import DraftTree, TreeMask
from specbench.errors import ConfigError
from specbench.models.base import LayerSkip
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import read, to_device

SEARCHES = ("online", "fixed")


@dataclass(frozen=True)
class SearchPlan:
    """How the search goes.

    Attributes:
        skip_ratio: Share of the middle sublayers that a candidate leaves out.
        window: Tokens that a candidate is scored on.
        interval: Decoding steps between two candidates.
        bayes_interval: Every how manieth candidate is suggested by Bayesian optimisation;
            0 for none.
        enough: Score above which the search ends.
        max_failures: Candidates in a row without gain after which it ends.
        max_tries: Candidates after which it ends.
    """

    skip_ratio: float = 0.45
    window: int = 50
    interval: int = 1
    bayes_interval: int = 25
    enough: float = 0.93
    max_failures: int = 300
    max_tries: int = 1000

    def __post_init__(self) -> None:
        for name in ("skip_ratio", "enough"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"A '{name}' of {value:g} is not possible",
                    "it is a share",
                    "Choose a number from 0 to 1.",
                )
        for name, least in (
            ("window", 1),
            ("interval", 1),
            ("bayes_interval", 0),
            ("max_failures", 0),
            ("max_tries", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(
                    f"A '{name}' of {value} is not possible",
                    "it is a count",
                    f"Choose {least} or more.",
                )


class SkipSearch:
    """The state of a search: the best set so far, and when to stop.

    Args:
        layers: Number of the target's blocks.
        plan: How the search goes.
        start: The set in use before any candidate has a score.
    """

    def __init__(self, layers: int, plan: SearchPlan, start: LayerSkip) -> None:
        self._plan = plan
        self._space = Sublayers.of_middle(layers)
        self._size = int(self._space.count * plan.skip_ratio)
        self._bayesian: BayesianSearch | None = None
        self._told: list[tuple[list[float], float]] = []
        self._point: list[float] = []
        self._candidate = start
        self.best = start
        self.score = 0.0
        self.tries = 0
        self.failures = 0
        self.active = self._size > 0 and plan.max_tries > 0

    def candidate(self, seed: int) -> LayerSkip:
        """Return the next set to try.

        Args:
            seed: Seed of a random set.
        """
        every = self._plan.bayes_interval
        if every and (self.tries + 1) % every == 0:
            self._point = self._suggest()
            self._candidate = self._space.largest(self._point, self._size)
        else:
            self._candidate = self._space.random(self._size, seed)
            self._point = self._space.point(self._candidate)
        return self._candidate

    def report(self, score: float) -> None:
        """Learn the score of the candidate; keep it if it beats the best, and see whether to stop.

        A suggestion is reported to the optimiser as the point that it suggested, as in the
        release, and not as the set that was made of it.
        """
        plan = self._plan
        self._told.append((self._point, score))
        self.tries += 1
        if score > self.score:
            self.best, self.score, self.failures = self._candidate, score, 0
        else:
            self.failures += 1
        enough = self.failures == 0 and score > plan.enough
        spent = self.failures > plan.max_failures or self.tries >= plan.max_tries
        self.active = not (enough or spent)

    def _suggest(self) -> list[float]:
        if self._bayesian is None:
            self._bayesian = BayesianSearch(self._space.count, exploration=2.5)
        for point, score in self._told:
            self._bayesian.tell(point, score)
        self._told.clear()
        return self._bayesian.ask()


class Swift(SelfSkip):
    """Draft with the target and sublayers that are searched online.

    Args:
        search: "online" to search while decoding; "fixed" to keep the first set.
        attention: Blocks whose attention the first set leaves out; None for every second block.
        feed_forward: Blocks whose feed-forward part it leaves out; None for every second block.
        skip_ratio: See `SearchPlan`, as for all that follow.
        window: Tokens that a candidate is scored on; the search waits until so many were emitted.
        interval: Decoding steps between two candidates.
        bayes_interval: Every how manieth candidate is suggested by Bayesian optimisation.
        enough: Score above which the search ends.
        max_failures: Candidates in a row without gain after which it ends.
        max_tries: Candidates after which it ends.

    Attributes:
        search: Carried from request to request, unless `reset` begins it anew.

    Raises:
        ConfigError: If a value is out of its range.
    """

    carries_state = True

    def __init__(
        self,
        search: str = "online",
        attention: Sequence[int] | None = None,
        feed_forward: Sequence[int] | None = None,
        skip_ratio: float = 0.45,
        window: int = 50,
        interval: int = 1,
        bayes_interval: int = 25,
        enough: float = 0.93,
        max_failures: int = 300,
        max_tries: int = 1000,
    ) -> None:
        super().__init__(attention, feed_forward)
        if search not in SEARCHES:
            raise ConfigError(
                f"There is no search '{search}'",
                "the set of skipped sublayers is searched online, or fixed",
                f"Choose one of: {', '.join(SEARCHES)}.",
            )
        self._plan = SearchPlan(
            skip_ratio, window, interval, bayes_interval, enough, max_failures, max_tries
        )
        self._online = search == "online"
        self.search: SkipSearch | None = None
        if self._online:
            self.needs = SelfSkip.needs | {"tree_mask"}
            self.nodes = window

    def prepare(self, models: ModelPair) -> None:
        """Settle the first set, and import what a Bayesian suggestion needs, untimed.

        Raises:
            ConfigError: If the target has no block of some index, or no middle blocks.
        """
        super().prepare(models)
        if not self._online:
            return
        if models.target.layers < 3:
            raise ConfigError(
                f"'{models.name}' has no sublayers to search",
                f"its target has {models.target.layers} blocks, of which the first and the last "
                "are never skipped",
                "Choose a target of at least 3 blocks, or method.search=fixed.",
            )
        if self._plan.bayes_interval:
            BayesianSearch(1)

    def reset(self) -> None:
        """Begin a new search with the next request."""
        self.search = None

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Take up the search of earlier requests, or begin one."""
        first = self.skip_for(session.models)
        if not self._online:
            return SkipDrafting(session, first)
        if self.search is None:
            self.search = SkipSearch(session.models.target.layers, self._plan, first)
        return _SearchDrafting(session, self.search, self._plan)


class _SearchDrafting(SkipDrafting):
    """One request's drafts while the set of skipped sublayers is searched."""

    def __init__(self, session: Session, search: SkipSearch, plan: SearchPlan) -> None:
        super().__init__(session, search.best)
        self._search = search
        self._plan = plan
        self._steps = 0

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Try a candidate set where one is due, then draft with the best one."""
        if self._search.active and session.emitted > self._plan.window:
            if self._steps % self._plan.interval == 0:
                self._try(session)
            self._steps += 1
        return super().propose(session, plan)

    def _try(self, session: Session) -> None:
        search, text = self._search, session.committed
        candidate = search.candidate(session.request.streams.noise_seed(len(text), Purpose.INITIAL))
        search.report(agreement(self._role, text[-self._plan.window - 1 :], candidate))
        self._role.skip = search.best


def agreement(role: Role, recent: Sequence[int], skip: LayerSkip) -> float:
    """Return the share of recent tokens that a skipped model would have said itself.

    The tokens are read once more behind the cache, at their old positions and under a mask that
    hides their old slots from them, and are forgotten again: the cached tokens stay untouched
    and nothing is copied.

    Args:
        role: The target as its own draft; its cache holds all of `recent` but the last.
        recent: The last tokens, one more than are scored; each is the answer to the one before.
        skip: The candidate.
    """
    device, length = role.model.device, role.cache.lengths[0]
    fed = to_device([recent], device)
    role.skip = skip
    logits = role.feed(fed[:, :-1], mask=_again(len(recent) - 1, device))
    role.cache.truncate([length])
    share: float = read((logits.argmax(-1) == fed[:, 1:]).float().mean())
    return share


@lru_cache(maxsize=8)
def _again(count: int, device: torch.device) -> TreeMask:
    """Return the mask under which the last `count` cached tokens are read once more."""
    hidden = torch.zeros(count, count, dtype=torch.bool)
    causal = torch.ones(count, count, dtype=torch.bool).tril()
    return TreeMask.on(device, torch.arange(count).repeat(2), torch.cat([hidden, causal], 1))
