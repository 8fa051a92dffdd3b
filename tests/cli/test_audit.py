"""`specbench audit`: what it asks for, what it prints, and how it ends."""

from __future__ import annotations

import io
import json

import pytest

from specbench.audit.verdict import AuditReport, Check, CheckOutcome, Kind
from specbench.cli import audit_table
from specbench.schema.result import MethodInfo

WRONG = """
import torch
from specbench.decoding.verifiers.token_sd import TokenSD


class Lenient(TokenSD):
    def accepted(self, scored, target, draft):
        return torch.full((1,), draft.shape[1])
"""

CHECKS = (
    Check("enumeration", Kind.ENUMERATION, CheckOutcome.PASS, 1e-17, 1e-9, samples=12),
    Check("greedy", Kind.GREEDY_IDENTITY, CheckOutcome.SKIPPED, detail="it refuses"),
)


def report(exactness="exact", *more, checks=CHECKS):
    info = MethodInfo("it", "It", exactness, "", "", "text")
    return AuditReport(info, "tables", (*checks, *more), 1.25)


@pytest.fixture
def tables(monkeypatch):
    """Replace the audit on tables by fixed checks; return what it was asked."""
    from specbench.audit import law_audit

    asked = []
    outcome = {"checks": list(CHECKS)}

    def audit_on_tables(method, *, quick, progress, seed):
        asked.append((method.name, quick, seed))
        progress("something")
        return outcome["checks"]

    monkeypatch.setattr(law_audit, "audit_on_tables", audit_on_tables)
    return asked, outcome


def test_a_method_is_audited_on_tables_alone_where_no_model_is_named(specbench, tables):
    done = specbench("audit", "method=pld", "--quick", "--seed", "7")
    assert done.exit_code == 0, done.output
    assert tables[0] == [("pld", True, 7)]
    assert "pld on tables: exact. 1 passed, 1 skipped" in done.stdout
    assert "it refuses" in done.stdout and "auditing pld" in done.stderr


def test_tables_have_a_head_of_every_family(specbench, tables):
    result = specbench("audit", "method=dflash")
    assert result.exit_code == 0, result.output
    assert tables[0] == [("dflash", False, 0)]


def test_a_broken_promise_exits_with_one_after_the_table(specbench, tables):
    tables[1]["checks"].append(Check("law", Kind.CHI_SQUARE, CheckOutcome.FAIL, detail="far off"))
    done = specbench("audit", "method=pld")
    assert done.exit_code == 1
    assert "far off" in done.stdout and "not exact" in done.stdout
    assert "pld: a promise is broken" in done.stderr


def test_json_is_one_report_or_a_list_and_has_no_infinity(specbench, tables):
    tables[1]["checks"].append(Check("law", Kind.SAMPLED_LAW, CheckOutcome.FAIL, float("inf"), 9.2))
    done = specbench("audit", "method=pld", "--json")
    values = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
    assert done.exit_code == 1
    assert values["ok"] is False and values["verdict"] == "not exact"
    assert values["checks"][-1]["statistic"] is None and values["checks"][0]["samples"] == 12


def test_all_audits_every_method_and_shows_a_row_for_each(specbench, tables, repo_root):
    done = specbench("audit", "--all", "--quick")
    assert done.exit_code == 0, done.output
    names = sorted(path.stem for path in (repo_root / "conf/method").glob("*.yaml"))
    assert [name for name, _, _ in tables[0]] == names
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert set(names) <= set(shown)
    assert f"{len(names)} of {len(names)} methods keep what they promise" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "method=NAME"),
        (("--all", "method=pld"), "--all audits every method"),
        (("method=pld", "--samples", "40"), "Add model=tiny_text"),
        (("method=pdl",), "Did you mean 'pld'?"),
        (("method=lantern", "model=tiny_text"), "decodes image"),
    ],
)
def test_a_mistake_is_one_clear_error(specbench, tables, words, says):
    done = specbench("audit", *words)
    assert done.exit_code == 2 and says in done.stderr and not done.stdout
    assert tables[0] == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tables_fit_the_terminal(width):
    from rich.console import Console

    name = "sampled law, tiny_image, temperature 1, top-k 128, guidance 2"
    numbers = (3.2, 9.2, 1.0, 400, 1e-4, 0.25, "why")
    long = Check(name, Kind.SAMPLED_LAW, CheckOutcome.INCONCLUSIVE, *numbers)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(audit_table.render(report("exact", long), width))
    console.print(audit_table.render_many([report("exact", long), report("lossy")], width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert "25%" in text and "inconclusive" in text and "Inconclusive is not exact" in text


def test_what_the_samples_would_have_shown_is_said_unless_they_failed():
    from rich.console import Console

    def shown(outcome):
        law = Check("law", Kind.SAMPLED_LAW, outcome, samples=400, powers={"a residual": 0.93})
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(audit_table.render(report("exact", law), 100))
        return " ".join(console.export_text().split())

    assert "400 texts would have shown: a residual 93%." in shown(CheckOutcome.PASS)
    assert "would have shown" not in shown(CheckOutcome.FAIL)
    law = Check("law", Kind.SAMPLED_LAW, CheckOutcome.PASS, powers={"a residual": 0.93})
    assert audit_table.to_dict(report("exact", law))["checks"][-1]["powers"] == {"a residual": 0.93}


def test_all_reads_every_method_as_a_run_would(monkeypatch):
    """Reading the files alone gives the methods that composing gives."""
    from specbench import hosting
    from specbench.cli import audit

    quick = audit._configs(["sampling.seed=3"], True, False, None)
    assert {config.sampling.seed for config in quick} == {3}
    by_name = {config.method.name: config.method for config in quick}
    for name in ("token_sd", "asap"):
        ((_, config),) = hosting.compose_jobs(hosting.HostRequest((f"method={name}",)))
        assert by_name[name] == config.method
    monkeypatch.setattr(audit.catalog, "names", lambda kind, folders=(): ["token_sd"])
    (changed,) = audit._configs(["method.draft_length=7"], True, False, None)
    assert "7" in str(changed.method.decoder) and changed.method != by_name["token_sd"]


def test_an_inconclusive_audit_is_ok_and_not_exact():
    found = report("exact", Check("law", Kind.SAMPLED_LAW, CheckOutcome.INCONCLUSIVE))
    assert found.ok and found.verdict == "inconclusive"


@pytest.mark.slow
def test_a_wrong_decoder_from_outside_is_found_on_a_real_model(
    specbench, tables, tmp_path, monkeypatch
):
    (tmp_path / "wrong_verifier.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    done = specbench(
        "audit",
        "method=token_sd",
        "method.decoder.verifier._target_=wrong_verifier.Lenient",
        "model=tiny_text",
        "task=tiny_math",
        "--quick",
        "--json",
    )
    assert done.exit_code == 1, done.output
    checks = {check["kind"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["sampled_law"]["outcome"] == "fail"
    assert checks["oracle"]["outcome"] == "pass", "the oracle stands in the wrong rule's place"


@pytest.mark.slow
def test_a_correct_method_is_exact_on_the_embedded_pictures(specbench, tables):
    done = specbench(
        "audit", "method=sjd", "model=tiny_image", "--quick", "--json", "--samples", "60"
    )
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["verdict"] in ("exact", "inconclusive")
    checks = {check["kind"]: check for check in values["checks"]}
    assert checks["oracle"]["outcome"] == checks["greedy_identity"]["outcome"]
    assert checks["oracle"]["outcome"] == "pass" or checks["greedy_identity"]["detail"]
    assert checks["negative_control"]["power"] is not None


def test_an_audit_on_a_model_says_first_how_long_it_takes(specbench):
    words = ("audit", "method=pld", "model=tiny_text", "task=tiny_math", "--quick")
    done = specbench(*words, "--samples", "20", "--minutes", "0.0001")
    assert "on tiny_text: 4 answers in four arms and 40 short texts, roughly" in done.stderr
    assert done.stdout.count("not tested: the limit of --minutes was reached") == 3
    assert "control" not in done.stdout
