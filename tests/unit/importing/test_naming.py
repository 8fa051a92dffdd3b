"""Names that authors gave their runs say model, method, dtype and law, and nothing is made up."""

from __future__ import annotations

import pytest

from specbench.importing.naming import label_of
from specbench.importing.records import Label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (
            "rest-vicuna-7b-v1.5-temperature-0.0-top_p-0",
            Label("vicuna-7b-v1.5", "rest", None, {"temperature": 0.0}),
        ),
        (
            "vicuna-7b-v1.5-temperature-0.0-top_p-0",
            Label("vicuna-7b-v1.5", None, None, {"temperature": 0.0}),
        ),
        (
            "rest-vicuna-7b-v1.5-temperature-0.7-top_p-0.9",
            Label("vicuna-7b-v1.5", "rest", None, {"temperature": 0.7, "top_p": 0.9}),
        ),
        (
            "medusa-vicuna-7b-v1.3-2-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3",
            Label("vicuna-7b-v1.3", "medusa", None, {"temperature": 0.0}),
        ),
        (
            "vicuna-7b-v1.3-vanilla-float16-temp-0.0",
            Label("vicuna-7b-v1.3", "ar", "float16", {"temperature": 0.0}),
        ),
        (
            "ess-vicuna-70b-fp16-temperature-1.0",
            Label("vicuna-70b", "eagle", "float16", {"temperature": 1.0}),
        ),
        ("vicuna-7b-v1.3-pld-float16", Label("vicuna-7b-v1.3", "pld", "float16", {})),
        ("gemma-2", Label("gemma-2", None, None, {})),
        ("restaurant-model", Label("restaurant-model", None, None, {})),
        ("", Label(None, None, None, {})),
    ],
)
def test_a_name_is_taken_apart(name: str, label: Label) -> None:
    assert label_of(name) == label
