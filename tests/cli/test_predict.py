"""`specbench predict` at the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.schema.result import BASELINE, METHOD, MethodInfo
from tests.unit.compare.factory import (
    MILLISECOND,
    a_round,
    metadata,
    plain_rounds,
    result_set,
    row,
)

Call = Callable[..., Result]

NAMES = ("token_sd", "svip", "conf_sd", "block_sd", "hf_assisted")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Five methods with drafts of different lengths, measured beside plain decoding."""
    paths = []
    for number, name in enumerate(NAMES):
        drafts = [
            a_round(accepted + 1, length, accepted, draft_ns=length * MILLISECOND)
            for accepted in (number, 2, 0) * 20
            for length in (4 + number,)
        ]
        rounds = [a_round(1), *drafts]
        rows = [row(BASELINE, "s", 0, plain_rounds(30)), row(METHOD, "s", 0, rounds)]
        method = {"name": name, "needs": ["draft"], "parameters": {}, "decoder": {}}
        model = {"target": "lmsys/vicuna-7b-v1.3", "draft": "double7/vicuna-68m"}
        about = metadata(MethodInfo(name), config={"method": method, "model": model})
        paths.append(str(result_set(tmp_path, rows, about, name).path))
    return paths


def test_a_prediction_of_the_measured_pair(specbench: Call, files: list[str]) -> None:
    result = specbench("predict", files[0], "--hardware", "h100", "--batch", "1,4")
    assert result.exit_code == 0, result.stderr
    assert "Vicuna 7B v1.3 with Vicuna 68M" in result.stdout
    assert "speedup by draft length, batch 1" in result.stdout
    assert "was measured on" not in result.stdout


def test_json_holds_every_cell_and_its_sources(specbench: Call, files: list[str]) -> None:
    words = ("--hardware", "h200", "--batch", "1,8", "--length", "2..5", "--json")
    result = specbench("predict", *files, *words)
    values = json.loads(result.stdout)
    assert values["format"] == 1
    assert values["hardware"]["name"] == "h200"
    assert values["hardware"]["sources"][0]["url"].startswith("https://")
    assert [p["profile"]["label"] for p in values["predictions"]] == list(NAMES)
    first = values["predictions"][0]["batches"]
    assert [batch["batch"] for batch in first] == [1, 8]
    assert [cell["length"] for cell in first[0]["sweep"]] == [2, 3, 4, 5]
    assert first[0]["best"]["speedup"] == max(cell["speedup"] for cell in first[0]["sweep"])


def test_more_bandwidth_is_not_slower_and_an_assumption_can_be_set(
    specbench: Call, files: list[str]
) -> None:
    def rate(*words: str) -> float:
        result = specbench("predict", files[0], "--hardware", "h100", "--json", *words)
        answer = json.loads(result.stdout)["predictions"][0]["batches"][0]
        return float(answer["best"]["tokens_per_second"])

    assert rate("--set", "bandwidth_efficiency=1") > rate() > rate("--set", "layer_overhead_us=90")


def test_many_methods_stand_in_one_table_and_as_markdown(specbench: Call, files: list[str]) -> None:
    words = ("predict", *files, "--hardware", "h100", "--target", "8b", "--draft", "1b")
    table = specbench(*words)
    assert "batch 32" in table.stdout and "loses" in table.stdout
    assert "Acceptance was measured on tiny_text" in table.stdout
    assert specbench(*words, "--details").stdout.count("speedup by draft length") == len(NAMES)
    markdown = specbench(*words, "--markdown").stdout
    assert "| token\\_sd | exact |" in markdown


def test_without_hardware_the_runs_themselves_are_predicted(
    specbench: Call, files: list[str]
) -> None:
    for words in ((), ("--check",), ("--hardware", "measured")):
        result = specbench("predict", *files, *words)
        assert result.exit_code == 0, result.stderr
        assert "5 runs predicted: the median error is 0.0%" in result.stdout
    values = json.loads(specbench("predict", *files, "--json").stdout)
    assert values["check"]["methods"][0]["predicted"] == pytest.approx(
        values["check"]["methods"][0]["observed"]
    )
    assert "| token\\_sd |" in specbench("predict", *files, "--markdown").stdout


def test_the_share_of_the_bandwidth_limit(specbench: Call, files: list[str]) -> None:
    """The measured machine is a cpu of unknown bandwidth, until the command says what it is."""
    unknown = " ".join(specbench("predict", *files).stdout.split())
    assert "No share of the memory-bandwidth limit: no hardware entry has the device" in unknown
    words = ("predict", *files, "--check", "--hardware", "h100")
    known = specbench(*words).stdout
    assert "limit of NVIDIA H100 SXM, 80 GB" in " ".join(known.split())
    shares = json.loads(specbench(*words, "--json").stdout)["shares"]
    # 30 forwards of 4 ms of target and 1 ms of host read 6.6 billion weights of 4 bytes each
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000
    assert shares[0]["baseline"] == pytest.approx(4 * weights / 3.35e12 / 5e-3)
    assert "| token\\_sd |" in specbench(*words, "--markdown").stdout.split("bandwidth")[1]


def test_a_model_that_does_not_fit_is_told_with_what_would(
    specbench: Call, files: list[str]
) -> None:
    words = ("--hardware", "h100", "--target", "70b", "--draft", "8b", "--batch", "1")
    text = " ".join(specbench("predict", files[0], *words).stdout.split())
    assert "needs 141 GB for its weights" in text
    assert "--hardware b200 or cpu_server or mi300x" in text
    swapped = specbench(
        "predict", files[0], "--hardware", "h100", "--target", "1b", "--draft", "8b"
    )
    assert "wrong way round" in " ".join(swapped.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hardware", "h10"), "Unknown hardware 'h10'"),
        (("--hardware", "h100", "--target", "8bb"), "Unknown shape '8bb'"),
        (("--hardware", "h100", "--batch", "-3"), "--batch cannot be '-3'"),
        (("--hardware", "h100", "--batch", "0"), "--batch cannot be '0'"),
        (("--hardware", "h100", "--length", "8..2"), "--length cannot be '8..2'"),
        (("--hardware", "h100", "--length", "1..9999999"), "--length cannot be"),
        (("--hardware", "h100", "--context", "-1"), "--context cannot be -1"),
        (("--hardware", "h100", "--dtype", "bf17"), "--dtype cannot be 'bf17'"),
        (("--hardware", "a100", "--dtype", "fp8"), "'a100_80gb' has no rate for float8"),
        (("--hardware", "h100", "--set", "x"), "--set cannot be 'x'"),
        (("--hardware", "h100", "--set", "speed=1"), "Unknown key 'assumed.speed'"),
        (("--target", "8b"), "--target would be ignored"),
        (("--check", "--target", "8b"), "--target would be ignored"),
        (("--check", "--hardware", "h10"), "Unknown hardware 'h10'"),
        (("--json", "--markdown"), "One format at a time"),
        (("-o", "x.json"), "--output has nothing to write"),
    ],
)
def test_what_makes_no_sense_is_refused(
    specbench: Call, files: list[str], words: tuple[str, ...], said: str
) -> None:
    result = specbench("predict", files[0], *words)
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[0]
    assert result.stdout == ""


def test_files_without_acceptance_are_refused(specbench: Call, tmp_path: Path) -> None:
    rows = [row(METHOD, "s", 0, plain_rounds(5))]
    path = result_set(tmp_path, rows, metadata(MethodInfo("beam"), None)).path
    result = specbench("predict", str(path), "--hardware", "h100")
    assert result.exit_code == 2
    assert "No file has an acceptance" in result.stderr


@pytest.mark.parametrize(("kind", "name"), [("hardware", "h100_sxm"), ("shape", "llama_8b")])
def test_hardware_and_shapes_are_listed_and_shown(specbench: Call, kind: str, name: str) -> None:
    plural = kind if kind == "hardware" else "shapes"
    listed = json.loads(specbench("list", plural, "--json").stdout)
    assert name in [entry["name"] for entry in listed]
    assert specbench("list", plural).exit_code == 0
    alias = {"hardware": "H100", "shape": "8b"}[kind]
    assert name in specbench("show", kind, name).stdout
    assert specbench("show", kind, alias).stdout == specbench("show", kind, name).stdout
    assert f"Did you mean '{alias.lower()}'?" in specbench("show", kind, f"{alias}0").stderr


def test_the_command_loads_nothing_heavy(files: list[str]) -> None:
    program = (
        "import sys; from specbench.cli.app import app\n"
        f"try: app(['predict', {files[0]!r}, '--hardware', 'h100', '--json'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'transformers', 'matplotlib', 'hydra'} & set(sys.modules), "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
