"""Which law ends a draft, in each method: computed anew from the models' tables.

The released codes of Draft & Verify, SWIFT, SVIP and BiLD look at the softmax of the draft's
logits as they are; assisted generation in transformers looks at the law that it draws from. At
temperature 0.5 the two give other drafts.
"""

from __future__ import annotations

import math

import pytest

from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.schema.build import instantiate
from tests.unit.decoding.parts import generate

VOCABULARY = 11
PROMPT = (0, 1, 0, 2)
NEW_TOKENS = 48
COLD, CUT = Law(0.5), Law(0.7, top_k=3)
DRAFT = markov_table(2, VOCABULARY, 1, 1.7)
THRESHOLDS = {
    "svip": {"threshold": 0.45},
    "draft_verify": {"threshold": 0.55, "max_length": 6},
    "bild": {"threshold": 0.55, "max_length": 6},
    "conf_sd": {"threshold": 0.55, "max_length": 6},
}


def pair():
    target = markov_table(2, VOCABULARY, 0, 1.7)
    skipping = TableModel(target, VOCABULARY, skipped=DRAFT)
    return ModelPair("table", skipping, TableModel(DRAFT, VOCABULARY))


def drafts(method, law, **options):
    """Return what every round drafted: the text before it, and the tree."""
    parts = load_method(method)["decoder"]
    parts["length"] |= options
    if method == "swift":
        parts["drafter"] |= {"search": "fixed"}
    decoder = instantiate(parts)
    models = pair()
    decoder.prepare(models)
    seen = []
    decoder.probe = lambda scored, verdict: seen.append((scored.positions[0], scored.tree))
    text = (*PROMPT, *generate(decoder, models, law, PROMPT, NEW_TOKENS).tokens)
    room = len(PROMPT) + NEW_TOKENS
    return [(text[:start], tree) for start, tree in seen if start < room - 8]


def entropy(law):
    return -sum(float(p) * math.log(float(p)) for p in law if p > 0)


def says_stop(method, law, token):
    """The published rule of one method at one token."""
    if method == "svip":
        return math.sqrt(0.15 * entropy(law)) > THRESHOLDS[method]["threshold"]
    if method == "bild":
        return float(law.max()) < THRESHOLDS[method]["threshold"]
    return float(law[token]) < THRESHOLDS[method]["threshold"]


def judged(method, law, context):
    logits = DRAFT(context)
    if method == "conf_sd" and not law.greedy:
        return law.probabilities(logits)
    return logits.softmax(-1)


@pytest.fixture(autouse=True)
def _a_threshold_that_stays(monkeypatch):
    from specbench.decoding.lengths.confidence import AdaptiveConfidence

    monkeypatch.setattr(AdaptiveConfidence, "update", lambda self, proposed, accepted: None)


@pytest.mark.parametrize("law", [COLD, CUT, Law(), Law(0.0)], ids=Law.describe)
@pytest.mark.parametrize("method", THRESHOLDS)
def test_a_chain_ends_where_the_release_ends_it(method, law):
    most = THRESHOLDS[method].get("max_length", 40)
    ended = 0
    for before, tree in drafts(method, law, **THRESHOLDS[method]):
        chain = tree.tokens[0].tolist()
        rules = [
            says_stop(method, judged(method, law, (*before, *chain[:place])), token)
            for place, token in enumerate(chain)
        ]
        if method == "bild":
            after = judged(method, law, (*before, *chain))
            assert not any(rules)
            assert len(chain) == most or says_stop(method, after, None)
        else:
            assert not any(rules[:-1])
            assert rules[-1] or len(chain) == most
        ended += len(chain) < most
    assert ended > 2


@pytest.mark.parametrize("law", [COLD, Law(), Law(0.0)], ids=Law.describe)
def test_swift_is_as_wide_and_as_long_as_the_raw_confidence_of_its_first_child_says(law):
    bounds, widths = (0.95, 0.8, 0.5), (3, 5, 8, 10) if law.greedy else (1, 3, 5, 10)
    seen = set()
    for before, tree in drafts("swift", law, threshold=0.45):
        tokens = tree.tokens[0].tolist()
        text, above = before, -1
        for expanded in tree.draws.parents:
            assert expanded == above
            children = tree.children[above + 1]
            first = tokens[children[0]]
            chance = float(DRAFT(text).softmax(-1)[first])
            width = widths[sum(chance <= bound for bound in bounds)]
            assert len(children) == min(width, VOCABULARY)
            seen.add(len(children))
            deepest = tree.draws.parents[-1] == above
            assert (chance < 0.45) == deepest or tree.depth == 25
            text, above = (*text, first), children[0]
    assert len(seen) > 1
