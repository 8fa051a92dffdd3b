"""The suffix automaton against counting by hand, while texts grow and are forgotten."""

from __future__ import annotations

from random import Random

import pytest

from specbench.decoding.search.suffix_automaton import Limits, Place, SuffixAutomaton


def occurrences(texts, run):
    """Count a run of tokens in texts, as it reads."""
    size = len(run)
    return sum(
        tuple(text[start : start + size]) == tuple(run)
        for text in texts
        for start in range(len(text) - size + 1)
    )


def followers(texts, run):
    """Return how often each token follows a run."""
    tokens = {token for text in texts for token in text}
    counts = {token: occurrences(texts, (*run, token)) for token in tokens}
    return {token: count for token, count in counts.items() if count}


def paths_by_suffix(texts, text, limits):
    """Return, for every suffix that occurs, its paths of most frequent tokens and their scores."""
    found = []
    for match in range(1, min(len(text), limits.depth - 1) + 1):
        suffix = tuple(text[-match:])
        if not occurrences(texts, suffix):
            break
        most = min(limits.tokens, int(match * limits.factor + limits.offset), limits.depth - match)
        found.append(dict(greedy_paths(texts, suffix, most, limits.probability)))
    return found


def greedy_paths(texts, suffix, most, least):
    """Yield every path along most frequent tokens, ties in all ways, with its score."""
    total = occurrences(texts, suffix)
    open_paths = [((), 0.0)]
    while open_paths:
        path, score = open_paths.pop()
        counts = followers(texts, (*suffix, *path)) if len(path) < most else {}
        top = max(counts.values(), default=0)
        if not top or top / total < least:
            yield path, score
            continue
        for token, count in counts.items():
            if count == top:
                open_paths.append(((*path, token), score + top / total))


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_a_search_while_texts_grow_in_turns_and_go(seed):
    random = Random(seed)
    automaton, texts = SuffixAutomaton(), {}
    for step in range(60):
        name = random.randrange(4)
        if name in texts and random.random() < 0.2:
            automaton.forget(name)
            del texts[name]
        else:
            more = [random.randrange(3) for _ in range(random.randrange(5))]
            texts.setdefault(name, []).extend(more)
            automaton.extend(name, more)
        if step % 6 == 5:
            for _ in range(30):
                run = [random.randrange(3) for _ in range(random.randrange(1, 7))]
                assert automaton.count(run) == occurrences(texts.values(), run)
    assert automaton.epoch > 0, "nothing was ever built anew"


def test_states_stay_below_twice_the_tokens_and_go_with_what_is_forgotten():
    random, automaton = Random(0), SuffixAutomaton()
    most = 0
    for name in range(200):
        if name >= 5:
            automaton.forget(name - 5)
        automaton.extend(name, [random.randrange(4) for _ in range(50)])
        most = max(most, automaton.states)
    assert most <= 2 * 2 * 6 * 50 + 1
    for name in range(195, 200):
        automaton.forget(name)
    assert automaton.states == 1 and automaton.count([0]) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("least", [0.0, 0.1, 0.5])
def test_a_path_has_the_best_score_of_all_suffixes(seed, least):
    random = Random(seed)
    automaton, texts = SuffixAutomaton(), [[], []]
    limits = Limits(depth=7, tokens=5, factor=1.0, offset=0.0, probability=least)
    place, drafted = Place(), 0
    automaton.extend(0, earlier := [random.randrange(3) for _ in range(40)])
    texts[0] = earlier
    for _ in range(40):
        token = random.choice([0, 0, 1, 2])
        texts[1].append(token)
        automaton.extend(1, [token])
        place = automaton.follow(place, [token])
        found = automaton.speculate(place, limits)
        paths = paths_by_suffix(texts, texts[1], limits)
        scores = [each[found.tokens] for each in paths if found.tokens in each]
        assert found.score in [pytest.approx(score) for score in scores] or not found.tokens
        assert found.score > max(min(each.values()) for each in paths) - 1e-9
        assert found.parents == tuple(range(-1, len(found.tokens) - 1))
        drafted += len(found.tokens)
    assert drafted > 20


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_holds_the_likeliest_continuations(seed):
    random = Random(seed)
    text = [random.randrange(3) for _ in range(60)]
    automaton = SuffixAutomaton()
    automaton.extend(0, text)
    limits = Limits(5, 6, 0.0, 6.0, 0.05, tree=True)
    found = automaton.speculate(automaton.follow(Place(), text), limits)
    scores = []
    for match in range(1, 5):
        suffix = tuple(text[-match:])
        total, level, shares = occurrences([text], suffix), [()], []
        for _ in range(5 - match):
            level = [(*path, t) for path in level for t in followers([text], (*suffix, *path))]
            shares += [occurrences([text], (*suffix, *path)) / total for path in level]
        scores.append(sum(sorted((s for s in shares if s >= 0.05), reverse=True)[:6]))
    assert found.score == pytest.approx(max(scores))
    assert all(parent < node for node, parent in enumerate(found.parents))
    siblings = list(zip(found.parents, found.tokens, strict=True))
    assert len(set(siblings)) == len(siblings) == len(found.tokens) > 1


def test_the_draft_grows_with_the_match():
    text = [*range(10), 99, *range(10)]
    automaton = SuffixAutomaton()
    for length, factor, drafted in ((3, 1.0, 3), (3, 2.0, 6), (4, 0.5, 2)):
        place = automaton.follow(Place(), [])
        automaton = SuffixAutomaton()
        automaton.extend(0, [*text[:11], *text[:length]])
        place = automaton.follow(Place(), [*text[:11], *text[:length]])
        found = automaton.speculate(place, Limits(64, 16, factor, 0.0, 0.1))
        assert found.tokens == tuple(range(length, length + drafted))


def test_a_place_follows_states_that_were_split_since():
    """A place keeps its length; its state may come to stand for longer suffixes alone."""
    automaton = SuffixAutomaton()
    automaton.extend(0, [1, 2, 3])
    place = automaton.follow(Place(), [2])
    automaton.extend(1, [4, 2, 5])  # 2 now occurs without the 1 before it
    assert automaton.follow(place, [5]) == automaton.follow(Place(), [2, 5])
    assert automaton.follow(place, [5]).length == 2
