"""A constraint over token ids, without text, and what its laws must be by definition."""

from __future__ import annotations

import itertools
from collections import defaultdict

import torch

from specbench.decoding.constraints.base import DeadEnd
from specbench.law import History, Law
from specbench.models.base import View


class TokenAnswers:
    """All answers are listed; each ends with the stop token, where there is one."""

    def __init__(self, answers, vocab, stop=None):
        ends = () if stop is None else (stop,)
        self.answers = {(*answer, *ends) for answer in answers}
        self.vocab = vocab
        self.prefixes = {answer[:n] for answer in self.answers for n in range(len(answer) + 1)}

    def digest(self):
        return repr(sorted(vars(self).items(), key=str))

    def bind(self, models):
        return self

    def start(self):
        return Walk(self)

    def mask(self, prefix):
        return [(*prefix, token) in self.prefixes for token in range(self.vocab)]


class Walk:
    def __init__(self, grammar, path=()):
        self.grammar = grammar
        self.path = path

    def allowed(self):
        mask = self.grammar.mask(self.path)
        if not any(mask):
            raise DeadEnd(len(self.path), "no answer goes on")
        return torch.tensor(mask)

    def accepts(self, token):
        return (*self.path, token) in self.grammar.prefixes

    def advance(self, token):
        assert self.accepts(token)
        self.path = (*self.path, token)

    def rollback(self, count):
        self.path = self.path[: len(self.path) - count]

    def clone(self):
        return Walk(self.grammar, self.path)


def binary_grammar(stop=2):
    """Five bits, either 00000 or beginning with 1: the example of Park et al. 2024."""
    ones = [(1, *rest) for rest in itertools.product((0, 1), repeat=4)]
    return TokenAnswers([(0,) * 5, *ones], vocab=3, stop=stop)


def unmasked(models, law, prompt, path):
    """Return the target's next law behind a prompt and a path, as a list."""
    context = torch.tensor([[*prompt, *path]])
    cache = models.target.new_cache(1, context.shape[1])
    logits = models.target.forward(context, cache, View(last=1))[:, -1]
    history = History(law, context, models.target.vocab_size)
    return law.probabilities(logits, history.now())[0].tolist()


def mass(models, law, prompt, answer):
    """Return the target's probability of an answer."""
    result = 1.0
    for place, token in enumerate(answer):
        result *= unmasked(models, law, prompt, answer[:place])[token]
    return result


def conditional(models, law, prompt, grammar):
    """Return the target's law, conditioned on the grammar."""
    masses = {answer: mass(models, law, prompt, answer) for answer in grammar.answers}
    total = sum(masses.values())
    return {answer: value / total for answer, value in masses.items()}


def adaptive(models, law, prompt, grammar, bounds=None):
    """Return the law of a sample in proportion to probability times bound (default 1).

    With no bounds this is the law of grammar-constrained decoding.
    """
    bounds = bounds or {}
    result = {}
    for answer in grammar.answers:
        weight = 1.0
        for place, token in enumerate(answer):
            prefix = answer[:place]
            law_here = unmasked(models, law, prompt, prefix)
            weights = [
                p * ok * bounds.get((*prefix, t), 1.0)
                for t, (p, ok) in enumerate(zip(law_here, grammar.mask(prefix), strict=True))
            ]
            weight *= weights[token] / sum(weights)
        result[answer] = weight
    return result


def learned(models, law, prompt, grammar, bounds, answer):
    """Return the bounds after an answer was sampled, densely, by the definition of the paper."""
    bounds = dict(bounds)
    bounds.setdefault(answer, 1.0)
    for place in range(len(answer) - 1, -1, -1):
        prefix = answer[:place]
        law_here = unmasked(models, law, prompt, prefix)
        bounds[prefix] = sum(
            p * bounds.get((*prefix, t), 1.0)
            for t, (p, ok) in enumerate(zip(law_here, grammar.mask(prefix), strict=True))
            if ok
        )
    return bounds


def adaptive_after(models, law, prompt, grammar, samples):
    """Return the law of the sample that follows `samples` others, over all that they may be."""
    states = [(1.0, {})]
    for _ in range(samples):
        states = [
            (weight * p, learned(models, law, prompt, grammar, bounds, answer))
            for weight, bounds in states
            for answer, p in adaptive(models, law, prompt, grammar, bounds).items()
        ]
    result = defaultdict(float)
    for weight, bounds in states:
        for answer, p in adaptive(models, law, prompt, grammar, bounds).items():
            result[answer] += weight * p
    return dict(result)


SAMPLED = Law(temperature=0.9)
