"""The audit passes what keeps the target's law and fails what does not."""

from __future__ import annotations

import pytest

from specbench.audit import law_audit
from specbench.audit.checks import FALSE_ALARM, Subject, enumerated, greedy, sampled
from specbench.audit.law_audit import QUICK, audit_on_tables, cases_of
from specbench.audit.tables import ENUMERATED, GREEDY, SAMPLED, Case
from specbench.audit.verdict import AuditReport, CheckOutcome, Kind
from specbench.audit.views import Statistic
from specbench.errors import ConfigError
from specbench.hosting import load_method
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.schema.method import MethodConfig

HERE = "tests.unit.audit.wrong"
REPRESENTATIVE = ("ar", "token_sd", "iad", "nucleus", "momentum")
CASES = {case.name: case for case in (*ENUMERATED, *SAMPLED, *GREEDY)}


def report_of(method: MethodConfig, quick: bool = True, **options: object) -> AuditReport:
    checks = audit_on_tables(method, quick=quick, **options)  # type: ignore[arg-type]
    return AuditReport(method.info(), "tables", tuple(checks))


def shipped(name: str) -> MethodConfig:
    return MethodConfig.from_dict(load_method(name))


def outside(target: str, exactness: str = "exact", modality: str = "text", **arguments: object):
    """Return a method whose decoder is named by a dotted path from outside of specbench."""
    decoder = {"_target_": f"{HERE}.{target}", **arguments}
    knob = "knob" if exactness == "lossy" else ""
    return MethodConfig(
        "mine", "Mine", exactness, decoder, knob=knob, modality=modality, needs=("draft",)
    )


def subject(target: str, **arguments: object) -> Subject:
    node = outside(target, **arguments).decoder
    return Subject(lambda models: instantiate(node), "exact")


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_representative_methods_are_what_they_declare(name: str) -> None:
    report = report_of(shipped(name))
    assert report.ok and report.proven
    declared = {"exact": "exact", "lossy": "lossy as declared"}
    assert report.verdict == declared[report.method.exactness]


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.names("method"))
def test_every_method_is_what_it_declares(name: str) -> None:
    report = report_of(shipped(name))
    assert report.ok and report.proven
    kinds = {check.kind for check in report.checks if check.outcome is CheckOutcome.PASS}
    if report.method.exactness == "exact":
        assert {Kind.CHI_SQUARE, Kind.GREEDY_IDENTITY} <= kinds
        assert Kind.ENUMERATION in kinds or name in NOT_SCRIPTED
        assert any("accepted" in check.detail for check in report.checks) or name in NO_DRAFTS
    else:
        assert any(check.neutral for check in report.checks)


NO_DRAFTS = {"ar", "rsd_s", "synthetic", "synthetic_free"}

NOT_SCRIPTED = {"rsd_s", "synthetic", "synthetic_free"}
"""Methods with noise of their own, or that decode a request twice."""

MUTATIONS = {
    "NoResidual": "temperature 1",
    "BonusOfTheLastPosition": "late positions",
    "BonusOfRawSoftmax": "temperature 0.7, top-k 2, repetition penalty 1.3",
    "AcceptsByDraft": "temperature 1",
    "StaleDraftLaw": "late positions",
    "PenaltyOfTheRoundsStart": "temperature 0.7, top-k 2, repetition penalty 1.3",
    "TakesAllDrafts": "a draft that disagrees",
}
"""Verifiers with a mistake, and a case of the short form that must find each."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_enumeration_finds_a_wrong_verifier(name: str) -> None:
    case = CASES[MUTATIONS[name]]
    assert case.quick
    check = enumerated(subject("verifier", name=name), case, 5000)
    assert check.outcome is CheckOutcome.FAIL
    assert check.statistic is not None and check.statistic > 1e-3
    assert "have probability" in check.detail


WHOLE = {
    "RunsPastTheEnd": (Kind.ENUMERATION, "end of text inside a draft"),
    "LongAnswers": (Kind.ENUMERATION, "temperature 1"),
    "HighestOfTies": (Kind.GREEDY_IDENTITY, "equal probabilities"),
    "Crashes": (Kind.ENUMERATION, "temperature 1"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "RunsPastTheEnd" else ())
        for name in WHOLE
    ],
)
def test_a_wrong_decoder_fails_its_audit(name: str) -> None:
    report = report_of(outside(name))
    kind, words = WHOLE[name]
    found = [check for check in report.checks if check.outcome is CheckOutcome.FAIL]
    assert any(check.kind is kind and words in check.name for check in found)
    assert not report.ok and report.verdict == "not exact"


@pytest.mark.parametrize(("target", "name"), [("tree_of", "KeepsRejected")])
def test_an_enumeration_finds_a_wrong_tree(target: str, name: str) -> None:
    check = enumerated(subject(target, rule=name), CASES["temperature 1"], 5000)
    assert check.outcome is CheckOutcome.FAIL


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("StaleMaximal", 4, marks=pytest.mark.slow),
        pytest.param("StaleFresh", 4, marks=pytest.mark.slow),
        ("ResampledFromTheLaw", 3),
    ],
)
def test_an_enumeration_finds_wrong_jacobi_loops(name: str, count: int) -> None:
    case = Case("two tokens", CASES["late positions"].make, count=count)
    check = enumerated(subject("jacobi", name=name), case, 20_000)
    assert check.outcome is CheckOutcome.FAIL


@pytest.mark.parametrize("count", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_jacobi_loop_without_mistakes_passes_the_same_case(count: int) -> None:
    case = Case("two tokens", CASES["late positions"].make, count=count)
    node = {"_target_": "specbench.decoding.loops.speculative_jacobi.SpeculativeJacobi"}
    right = Subject(lambda models: instantiate({**node, "window": 3}), "exact")
    assert enumerated(right, case, 20_000).outcome is CheckOutcome.PASS


@pytest.mark.parametrize(
    "name",
    [
        "NoResidual",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("SharedNumbers", "TakesAllDrafts")),
    ],
)
def test_samples_find_a_wrong_verifier(name: str) -> None:
    """Shared numbers look right to an enumeration: only the numbers themselves are wrong."""
    wrong = subject("verifier", name=name)
    checks = sampled(wrong, CASES["temperature 1, 24 tokens"], 50, 3)
    assert any(check.outcome is CheckOutcome.FAIL for check in checks)
    if name == "SharedNumbers":
        assert enumerated(wrong, CASES["temperature 1"], 5000).outcome is CheckOutcome.PASS


@pytest.mark.slow
def test_samples_find_siblings_in_reverse_order() -> None:
    checks = sampled(subject("reversed_beam"), CASES["temperature 1, 24 tokens"], 300, 3)
    assert any(check.outcome is CheckOutcome.FAIL for check in checks)


def test_what_cannot_be_enumerated_is_not_failed() -> None:
    """A generator of its own and the right law: the enumeration says that it cannot tell."""
    report = report_of(outside("OwnGenerator"))
    skipped = [check for check in report.checks if check.outcome is CheckOutcome.SKIPPED]
    assert skipped and "cannot be enumerated" in skipped[0].detail
    assert report.verdict == "exact"


def test_too_many_paths_are_said_and_sampled() -> None:
    check = enumerated(subject("right", draft_length=3), CASES["temperature 1"], 20)
    assert check.outcome is CheckOutcome.SKIPPED and check.detail == "more than 20 paths"


@pytest.mark.slow
def test_a_right_decoder_from_outside_passes() -> None:
    heard: list[str] = []
    report = report_of(outside("right"), progress=heard.append)
    assert report.ok and report.verdict == "exact"
    assert len(heard) == len(set(heard)) >= len(report.checks) - 2


@pytest.mark.slow
def test_a_lossy_method_that_calls_itself_exact_fails() -> None:
    lenient = shipped("lenient_sd")
    claimed = MethodConfig("mine", "Mine", "exact", lenient.decoder, needs=("draft",))
    report = report_of(claimed)
    assert not report.ok and report.verdict == "not exact"


@pytest.mark.slow
def test_a_lossy_method_shows_its_distance_and_is_exact_at_its_neutral_value() -> None:
    report = report_of(shipped("lenient_sd"))
    assert report.total_variation is not None and report.total_variation > 0.1
    at_one = [check for check in report.checks if check.neutral]
    outcomes = {check.outcome for check in at_one}  # few samples may have too little power
    assert CheckOutcome.PASS in outcomes and outcomes <= {CheckOutcome.PASS, CheckOutcome.SKIPPED}
    assert all("lenience=1.0" in check.name for check in at_one)


@pytest.mark.slow
def test_a_neutral_value_that_is_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"lenient_sd": law_audit.NEUTRAL["lenient_sd"].__class__({"lenience": 0.9})}
    monkeypatch.setattr(law_audit, "NEUTRAL", wrong)
    report = report_of(shipped("lenient_sd"))
    assert not report.ok and report.verdict == "not what it declares"


def test_a_lossy_method_of_unknown_neutral_value_is_only_measured() -> None:
    report = report_of(outside("verifier", "lossy", name="NoResidual"))
    assert report.ok and report.verdict == "lossy as declared"
    assert {check.outcome for check in report.checks} == {CheckOutcome.MEASURED}


def test_a_greedy_method_is_asked_at_temperature_zero_alone() -> None:
    report = report_of(outside("right", "greedy"))
    assert {check.kind for check in report.checks} == {Kind.GREEDY_IDENTITY}
    assert report.verdict == "keeps the argmax only"
    broken = report_of(outside("HighestOfTies", "greedy"))
    assert not broken.ok and broken.verdict == "does not keep the argmax"


def test_a_greedy_text_of_another_length_differs() -> None:
    check = greedy(subject("LongAnswers"), CASES["temperature 0, length limit 1"])
    assert check.outcome is CheckOutcome.FAIL and "in length" in check.detail
    assert check.statistic == check.samples == 3


def test_arguments_that_a_decoder_refuses_are_an_error() -> None:
    with pytest.raises(ConfigError, match="does not accept"):
        audit_on_tables(outside("right", depth=3), quick=True)
    with pytest.raises(ConfigError, match="Cannot import"):
        audit_on_tables(outside("nothing_of_that_name"), quick=True)


def test_a_test_that_could_have_seen_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Statistic, "power", lambda view, generations, stage: 0.004)
    checks = [check for check in report_of(shipped("ar")).checks if check.kind is Kind.CHI_SQUARE]
    assert {check.outcome for check in checks} == {CheckOutcome.SKIPPED}
    assert all(check.detail.startswith("not tested: so few samples") for check in checks)


def test_the_tests_of_an_audit_share_its_false_alarm_rate() -> None:
    checks = [check for check in report_of(shipped("ar")).checks if check.kind is Kind.CHI_SQUARE]
    assert len(checks) == cases_of(shipped("ar"), QUICK).tests
    assert sum(check.false_alarm or 0.0 for check in checks) == pytest.approx(FALSE_ALARM)
    assert max(check.power or 0.0 for check in checks) > 0.8
