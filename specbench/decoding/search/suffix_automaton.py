"""How often every run of tokens occurs in some texts, and what follows it: a suffix automaton.

A state stands for all runs that end at the same places, so n tokens need fewer than 2 n states.
Appending a token adds one or two states in amortised constant time and counts the runs that end
there, one for each state on the chain of suffix links: Blumer et al. 1985, "The Smallest Automaton
Recognizing the Subwords of a Text". SuffixDecoding's release counts the same in a suffix tree cut
at a depth (ArcticInference, csrc/suffix_decoding/suffix_tree.cc), which costs that depth a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple


class Place(NamedTuple):
    """Where the end of a text was found.

    Attributes:
        state: The state of its longest suffix that occurs.
        length: Tokens of that suffix.
    """

    state: int = 0
    length: int = 0


class Speculation(NamedTuple):
    """Continuations of a matched suffix.

    Attributes:
        tokens: Of the nodes of a tree.
        parents: Index of each node's parent, -1 for the root.
        score: The sum of the nodes' probabilities: expected tokens, if frequencies were laws.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    score: float = 0.0


class Limits(NamedTuple):
    """How far a speculation goes; named as in the release, `speculate` in suffix_tree.cc.

    Attributes:
        depth: Most tokens of a suffix and what is drafted behind it together.
        tokens: Most tokens of a speculation.
        factor: Tokens for every matched one.
        offset: Tokens beside these.
        probability: Least share of a suffix's occurrences that a drafted path follows.
        tree: Whether the likeliest nodes are taken, and not the likeliest path.
    """

    depth: int
    tokens: int
    factor: float
    offset: float
    probability: float
    tree: bool = False

    def most(self, match: int) -> int:
        """Return the most tokens behind a suffix of `match` tokens, however deep."""
        return min(int(match * self.factor + self.offset + 1e-6), self.tokens)


class SuffixAutomaton:
    """Counts runs of tokens in texts that grow at their ends and can be forgotten.

    Forgetting a text takes its counts back exactly. Its states stay until more tokens were
    forgotten than are known; then everything is built anew.

    Attributes:
        epoch: Changes when states are renumbered: a `Place` of another epoch is void.
        texts: The known texts, the oldest first.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.texts: dict[int, list[int]] = {}
        self._clear()

    def _clear(self) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._count = [0]
        self._best = [-1]
        self._ends: dict[int, int] = {}
        self._forgotten = 0

    @property
    def states(self) -> int:
        """Number of states, those of forgotten texts included."""
        return len(self._link)

    def extend(self, text: int, tokens: Sequence[int]) -> None:
        """Let tokens follow a text; a new text begins with its first ones."""
        self.texts.setdefault(text, []).extend(tokens)
        self._append(text, tokens)

    def forget(self, text: int) -> None:
        """Take a text out."""
        tokens = self.texts.pop(text)
        self._ends.pop(text, None)
        before = 0
        for token in tokens:
            state = self._next[before][token]
            self._add(state, -1)
            self._choose(before, token)
            before = state
        self._forgotten += len(tokens)
        if self._forgotten > sum(map(len, self.texts.values())):
            self._clear()
            self.epoch += 1
            for kept, known in self.texts.items():
                self._append(kept, known)

    def count(self, tokens: Sequence[int]) -> int:
        """Return how often a run of tokens occurs."""
        state = 0
        for token in tokens:
            if token not in self._next[state]:
                return 0
            state = self._next[state][token]
        return self._count[state]

    def follow(self, place: Place, tokens: Sequence[int]) -> Place:
        """Return the place of a text's end after further tokens."""
        state, length = place
        for token in tokens:
            while state and length <= self._length[self._link[state]]:
                state = self._link[state]  # the state was split since
            while state and token not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            state = self._next[state].get(token, 0)
            length = length + 1 if state else 0
        return Place(state, length)

    def speculate(self, place: Place, limits: Limits) -> Speculation:
        """Return the continuation of the best score among all suffixes that end at a place.

        Of equal scores the longest suffix's is taken.
        """
        best, grow = Speculation(), self._tree if limits.tree else self._path
        state, longest = place.state, min(place.length, limits.depth - 1)
        while state:
            shorter = self._length[self._link[state]]
            for match in range(longest, shorter, -1) if self._count[state] else ():
                most = limits.most(match)
                if most <= best.score:
                    return best
                found = grow(state, most, limits.depth - match, limits.probability)
                best = found if found.score > best.score else best
                if limits.depth - match >= most:
                    break  # shorter suffixes of the state are followed by the same, and by less
            state, longest = self._link[state], min(longest, shorter)
        return best

    def _path(self, state: int, most: int, depth: int, least: float) -> Speculation:
        tokens: list[int] = []
        total, score = self._count[state], 0.0
        while len(tokens) < min(most, depth) and self._best[state] >= 0:
            token = self._best[state]
            state = self._next[state][token]
            share = self._count[state] / total
            if share < least or not share:
                break
            tokens.append(token)
            score += share
        return Speculation(tuple(tokens), tuple(range(-1, len(tokens) - 1)), score)

    def _tree(self, state: int, most: int, depth: int, least: float) -> Speculation:
        tokens: list[int] = []
        parents: list[int] = []
        total, score = self._count[state], 0.0
        queue: list[tuple[float, int, int, int, int]] = []

        def offer(state: int, parent: int, level: int) -> None:
            for token, child in self._next[state].items():
                share = self._count[child] / total
                if share >= least and share and level <= depth:
                    heappush(queue, (-share, parent, token, child, level))

        offer(state, -1, 1)
        while queue and len(tokens) < most:
            negative, parent, token, child, level = heappop(queue)
            tokens.append(token)
            parents.append(parent)
            score -= negative
            offer(child, len(tokens) - 1, level + 1)
        return Speculation(tuple(tokens), tuple(parents), score)

    # How it grows.

    def _append(self, text: int, tokens: Sequence[int]) -> None:
        before = self._ends.get(text, 0)
        for token in tokens:
            state = self._step(before, token)
            self._add(state, 1)
            chain = before
            while chain > 0:
                after, best = self._next[chain], self._best[chain]
                if best < 0 or self._count[after[token]] > self._count[after[best]]:
                    self._best[chain] = token
                chain = self._link[chain]
            before = state
        self._ends[text] = before

    def _add(self, state: int, number: int) -> None:
        while state > 0:
            self._count[state] += number
            state = self._link[state]

    def _choose(self, state: int, token: int) -> None:
        """Choose anew what follows the suffixes at a state most often, where it was a token."""
        while state > 0:
            if self._best[state] == token:
                after = self._next[state]
                self._best[state] = max(after, key=lambda t: self._count[after[t]])
            state = self._link[state]

    def _step(self, before: int, token: int) -> int:
        """Return the state of a text's end after one more token, made where there is none."""
        known = self._next[before].get(token)
        if known is not None:
            return self._state_of(before, token, known)
        state, at = self._new(self._length[before] + 1), before
        while at >= 0 and token not in self._next[at]:
            self._next[at][token] = state
            at = self._link[at]
        self._link[state] = 0 if at < 0 else self._state_of(at, token, self._next[at][token])
        return state

    def _state_of(self, before: int, token: int, state: int) -> int:
        """Return the state whose longest run is that of `before` and a token: split where needed.

        The shorter runs of `state` are about to end where its longer ones do not.
        """
        length = self._length[before] + 1
        if self._length[state] == length:
            return state
        part = self._new(length)
        self._next[part] = dict(self._next[state])
        self._link[part], self._link[state] = self._link[state], part
        self._count[part], self._best[part] = self._count[state], self._best[state]
        while before >= 0 and self._next[before].get(token) == state:
            self._next[before][token] = part
            before = self._link[before]
        return part

    def _new(self, length: int) -> int:
        self._next.append({})
        self._link.append(0)
        self._length.append(length)
        self._count.append(0)
        self._best.append(-1)
        return len(self._link) - 1
