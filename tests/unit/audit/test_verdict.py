"""A verdict speaks of what was tested."""

from __future__ import annotations

import pytest

from specbench.audit.verdict import AuditReport, Check, CheckOutcome, Kind
from specbench.schema.result import MethodInfo

TABLES = Check("enumeration", Kind.ENUMERATION, CheckOutcome.PASS, statistic=0.0)


def report(*checks: Check, exactness: str = "exact") -> AuditReport:
    return AuditReport(MethodInfo("m", exactness=exactness), "tiny_text", (TABLES, *checks))


def of_model(*outcomes: CheckOutcome) -> list[Check]:
    kinds = (Kind.ORACLE, Kind.SAMPLED_LAW)
    return [Check(kind, kind, outcome) for kind, outcome in zip(kinds, outcomes, strict=True)]


@pytest.mark.parametrize("exactness", ["exact", "lossy"])
def test_a_law_whose_every_check_was_skipped_is_not_tested(exactness: str) -> None:
    found = report(*of_model(CheckOutcome.SKIPPED, CheckOutcome.SKIPPED), exactness=exactness)
    assert found.ok and not found.proven
    assert found.verdict.startswith("not tested under this law")


def test_one_check_of_the_models_law_is_enough() -> None:
    found = report(*of_model(CheckOutcome.SKIPPED, CheckOutcome.PASS))
    assert found.proven and found.verdict == "exact"


def test_without_a_model_the_tables_speak() -> None:
    assert report().verdict == "exact"
