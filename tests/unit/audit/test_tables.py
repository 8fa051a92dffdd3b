"""Fitting, the laws of the views, and the rates of a whole audit on a right decoder."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from scipy.stats import binom

from specbench.audit.checks import Subject, sampled
from specbench.audit.enumeration import true_law
from specbench.audit.fitting import NEUTRAL, Fitter, changed, neutral, shrunk
from specbench.audit.grammar import TableGrammar
from specbench.audit.tables import ENUMERATED, GREEDY, PICTURES, SAMPLED, Case, table_pair
from specbench.audit.views import views_of
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.hosting import load_method
from specbench.schema import catalog
from specbench.schema.build import instantiate

NODE = {
    "_target_": "specbench.decoding.draft_verify.DraftVerify",
    "drafter": {"_target_": "mine.Drafter", "draft_length": 9, "width": 7},
    "length": {"_target_": "specbench.decoding.lengths.constant.Constant", "draft_length": 9},
}


def test_only_parts_of_specbench_are_shrunk() -> None:
    small = shrunk(NODE)
    assert small["length"]["draft_length"] == 2
    assert small["drafter"] == NODE["drafter"]
    assert NODE["length"]["draft_length"] == 9, "the method's own node stays"


def test_small_values_stay() -> None:
    node = {"_target_": "specbench.x.Y", "draft_length": 1, "widths": [9], "replacement": True}
    assert shrunk(node) == {**node, "widths": [2, 1]}


def test_a_change_sees_the_class_the_argument_and_the_value() -> None:
    seen = []
    changed(NODE, lambda part, key, value: seen.append((part, key)) or value)  # type: ignore[func-returns-value]
    assert ("Constant", "draft_length") in seen and ("Drafter", "width") not in seen


def test_every_lossy_method_has_a_neutral_value_that_its_decoder_knows() -> None:
    lossy = {n for n in catalog.names("method") if load_method(n)["exactness"] == "lossy"}
    assert lossy == set(NEUTRAL)
    for name, known in NEUTRAL.items():
        node = load_method(name)["decoder"]
        there = neutral(node, known.arguments)
        assert there != node, name
        assert NEUTRAL[name].describe().count("=") == len(known.arguments)


@pytest.mark.parametrize("name", catalog.names("method"))
def test_every_method_can_be_built_for_tables(name: str) -> None:
    method = load_method(name)
    make = (PICTURES if method["modality"] == "image" else GREEDY)[0].make
    with Fitter() as fitter:
        models = make()
        for node in (method["decoder"], shrunk(method["decoder"])):
            instantiate(fitter.fitted(node, models)).prepare(models)


def test_datastores_are_deleted() -> None:
    node = {"_target_": "specbench.zoo.datastore.Datastore", "path": "auto", "kind": "suffix"}
    with Fitter() as fitter:
        outer = {"_target_": "specbench.x.Y", "datastore": node}
        path = fitter.fitted(outer, table_pair())["datastore"]["path"]
        assert fitter.fitted(outer, table_pair())["datastore"]["path"] == path
        assert (Path(path) / "meta.json").is_file()
    assert not Path(path).exists()


def test_the_names_of_cases_are_unique() -> None:
    names = [case.name for case in (*ENUMERATED, *SAMPLED, *GREEDY)]
    assert len(names) == len(set(names))


def test_late_laws_are_marginals_of_the_whole_law() -> None:
    """The carried laws of six tokens, against every sequence of six tokens."""
    case = Case("six tokens", lambda: table_pair(order=1), count=6, memory=1)
    models = case.make()
    whole = true_law(models, case.law, case.prompt, 6)
    early, late, moves = (defaultdict(float) for _ in range(3))
    for tokens, weight in whole.items():
        early[tokens[:3]] += weight
        late[tokens[3:]] += weight
        for pair in zip((case.prompt[-1], *tokens), tokens, strict=False):
            moves[pair] += weight / 6
    first, last, transitions = views_of(case, models)
    for view, expected in ((first, early), (last, late), (transitions, moves)):
        assert set(view.law) == set(expected)
        assert all(math.isclose(view.law[key], p) for key, p in expected.items())
        assert math.isclose(sum(view.biased.values()), 1.0)
        assert view.biased != view.law


def test_a_grammar_of_tables_forbids_repetition() -> None:
    walk = TableGrammar(3).start()
    assert walk.allowed().all()
    walk.advance(1)
    other = walk.clone()
    assert walk.allowed().tolist() == [True, False, True] and not walk.accepts(1)
    walk.rollback(1)
    assert walk.accepts(1) and not other.accepts(1)


@pytest.mark.slow
def test_a_right_decoder_is_suspected_as_often_as_stated() -> None:
    """First looks over many seeds: p-values under 0.05 and 0.01 come as often as they should."""
    case = SAMPLED[0]
    right = Subject(lambda models: Autoregressive(), "exact")
    found: dict[str, list[float]] = defaultdict(list)
    for index in range(80):
        for check in sampled(right, case, 30, 3, seed=1000 * index):
            assert check.outcome in ("pass", "skipped") and check.p_value is not None
            found[check.name].append(check.p_value)
    alarms = Counter({name: sum(p < 0.05 for p in values) for name, values in found.items()})
    assert len(alarms) == 3
    assert max(alarms.values()) <= binom.isf(1e-4, 80, 0.05), alarms
    assert sum(alarms.values()) >= 3, "p-values are no constants"
