"""A draft of other ids than its target's speaks of the target's, and never cuts its law."""

from __future__ import annotations

import pytest
import torch

from specbench.audit.checks import Subject, enumerated, greedy
from specbench.audit.fitting import Fitter, shrunk
from specbench.audit.tables import ENUMERATED, GREEDY, lacking_pair
from specbench.hosting import load_method
from specbench.models import engines
from specbench.models.aligned import STAND_IN, AlignedDraft
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.schema import catalog
from specbench.schema.build import instantiate

CASE = next(case for case in ENUMERATED if case.make is lacking_pair)
TEXT = next(case for case in GREEDY if case.make is lacking_pair)


def drafting() -> list[str]:
    """Return the methods of text with a draft model that promise something."""
    entries = {name: catalog.load("method", name) for name in catalog.names("method")}
    return [
        name
        for name, entry in entries.items()
        if "draft" in entry.get("needs", ()) and entry["exactness"] != "lossy"
    ]


def pair(target: int, *drafts: int) -> ModelPair:
    models = [TableModel(markov_table(1, ids, ids), ids, f"{ids} ids") for ids in (target, *drafts)]
    return ModelPair("tables", models[0], models[1], more_drafts=tuple(models[2:]))


def logits_of(model, tokens):
    return model.forward(torch.tensor([tokens]), model.new_cache(1, len(tokens)))[0]


def test_a_draft_of_as_many_ids_stays_what_it_is():
    assert isinstance(pair(4, 4).draft, TableModel)


def test_the_draft_s_law_is_zero_at_ids_that_it_lacks_and_the_target_s_is_whole():
    models = pair(5, 3)
    assert models.draft is not None and models.draft.vocab_size == 5
    logits = logits_of(models.draft, [2, 1])
    own = logits_of(TableModel(markov_table(1, 3, 3), 3), [2, 1])
    assert torch.equal(logits[:, :3], own)
    assert logits[:, 3:].isneginf().all() and logits.shape == (2, 5)
    assert logits_of(models.target, [4]).isfinite().all() and models.target.vocab_size == 5


def test_ids_that_only_the_draft_has_are_never_proposed():
    models = pair(3, 5, 2)
    assert [draft.vocab_size for draft in models.drafts] == [3, 3]
    own = logits_of(TableModel(markov_table(1, 5, 5), 5), [2, 1])
    assert torch.equal(logits_of(models.draft, [2, 1]), own[:, :3])


def test_a_draft_is_never_fed_an_id_that_it_lacks():
    seen = []
    table = markov_table(1, 3, 3)
    draft = TableModel(lambda context: seen.append(context) or table(context), 3)
    models = ModelPair("tables", TableModel(markov_table(1, 5, 5), 5), draft)
    tokens = torch.tensor([[1, 4, 2, 3]])
    assert models.draft is not None
    models.draft.forward(tokens, models.draft_cache(8))
    assert seen[-1] == (1, STAND_IN, 2, STAND_IN)
    assert tokens.tolist() == [[1, 4, 2, 3]], "the caller's tokens stay"


def test_another_engine_takes_the_draft_s_place_behind_it(monkeypatch):
    models = pair(5, 3)
    draft = models.draft
    assert isinstance(draft, AlignedDraft)
    switched = []
    monkeypatch.setattr(engines, "Lean", TableModel)
    monkeypatch.setattr(engines, "run_by", lambda model, engine: switched.append(model) or model)
    engines.switch(models, "eager")
    assert models.draft is draft and [model.name for model in switched] == ["5 ids", "3 ids"]


def test_a_draft_over_a_part_of_the_vocabulary_maps_its_numbers_to_the_target_s_ids():
    ids = [4, 0, 2]
    seen = []
    table = markov_table(1, 3, 3)
    body = TableModel(lambda context: seen.append(context) or table(context), 3)
    models = ModelPair("tables", TableModel(markov_table(1, 5, 5), 5), AlignedDraft(body, 5, ids))
    logits = logits_of(models.draft, [2, 3, 4])
    assert seen[-1] == (2, STAND_IN, 0)
    own = torch.stack([table(seen[-1][: count + 1]) for count in range(3)])
    assert torch.equal(logits[:, ids], own)
    assert logits[:, [1, 3]].isneginf().all()


MANY_PATHS = {"specinfer", "spectr"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in MANY_PATHS else name
        for name in drafting()
    ],
)
def test_every_drafting_method_keeps_the_law_of_a_target_with_more_ids(method):
    """By enumeration; the draft lacks a token, and a second one has one more."""
    entry = load_method(method)
    node = shrunk(entry["decoder"])
    with Fitter() as fitter:

        def build(models):
            return instantiate(fitter.fitted(node, models))

        subject = Subject(build, entry["exactness"])
        checks = [greedy(subject, TEXT)]
        if entry["exactness"] == "exact":
            checks.append(enumerated(subject, CASE, 5_000))
    assert checks and {check.outcome for check in checks} <= {"pass", "skipped"}, checks
    assert any(check.outcome == "pass" for check in checks)
