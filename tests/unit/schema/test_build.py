"""Nodes with a `_target_` become objects; mistakes name the path that failed."""

from __future__ import annotations

from fractions import Fraction

import pytest

from specbench.errors import ConfigError
from specbench.schema.build import instantiate, locate


def test_nested_nodes_are_built_first() -> None:
    inner = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
    built = instantiate({"_target_": "builtins.dict", "half": inner, "list": [inner, 3]})
    assert built == {"half": Fraction(1, 2), "list": [Fraction(1, 2), 3]}


def test_extra_arguments_go_to_the_outermost_call() -> None:
    assert instantiate({"_target_": "builtins.dict", "a": 1}, b=2) == {"a": 1, "b": 2}


def test_plain_values_stay_as_they_are() -> None:
    assert instantiate({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    "path", ["fractions.Fractin", "no_such_module_anywhere.Class", "bare", "fractions.sub.Class"]
)
def test_a_target_that_does_not_exist_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=path.split(".")[-1] if path != "bare" else "bare"):
        locate(path)


def test_the_nearest_attribute_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        locate("fractions.Fractin")
    assert caught.value.fix == "Did you mean 'Fraction'?"


def test_wrong_arguments_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="fractions.Fraction"):
        instantiate({"_target_": "fractions.Fraction", "no_such_argument": 1})
