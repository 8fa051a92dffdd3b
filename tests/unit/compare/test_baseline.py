"""What a comparison says of the plain decoding that its speedups are measured against."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specbench.compare import compare
from specbench.report import words
from specbench.schema.result import BASELINE, METHOD
from tests.unit.compare.factory import draft_rounds, metadata, result_set, row


def compared(tmp_path, **found):
    about = metadata()
    about = replace(about, provenance={**about.provenance, "roofline": found or None})
    rows = [row(arm, "a", 0, draft_rounds([1, 1])) for arm in (BASELINE, METHOD)]
    return compare([result_set(tmp_path, rows, about)])


def test_the_heading_and_the_setting_say_it(tmp_path):
    comparison = compared(tmp_path, fraction=0.72, in_cache=False)
    assert words.heading(comparison).endswith("ar at 72% of the memory bandwidth")
    assert comparison.setting.roofline_fraction == 0.72
    assert not any("optimistic" in warning for warning in comparison.warnings)


def test_a_slow_baseline_is_warned_of(tmp_path):
    comparison = compared(tmp_path, fraction=0.41, in_cache=True)
    assert "ar at 41% of the cache bandwidth" in words.heading(comparison)
    assert any("41%" in w and "optimistic" in w for w in comparison.warnings)


@pytest.mark.parametrize("fraction", [None, "0.5", float("nan"), -1.0, True])
def test_older_files_and_foreign_ones_say_nothing(tmp_path, fraction):
    comparison = compared(tmp_path, fraction=fraction)
    assert comparison.setting.roofline == "" and comparison.setting.roofline_fraction is None
