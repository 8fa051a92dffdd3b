"""What a metric's YAML file says, and which of them measure pictures.

Most metrics are derived from every run and are columns of a comparison; their files only define
them. A file with a `metric` node measures pictures: the node names a class of
`specbench.metrics`, which the runner builds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any, Literal

from pydantic import StrictStr
from pydantic.dataclasses import dataclass

from specbench.errors import ConfigError
from specbench.schema.group import Group, Keys, Text, problem
from specbench.schema.method import own_parameters


@dataclass(frozen=True)
class MetricConfig(Group):
    """A metric that measures pictures.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        unit: Unit of its values.
        better: Which values are better.
        definition: What it is.
        metric: The node that `specbench.schema.build.instantiate` turns into a metric.
        average: For metrics with a value for each picture: the mean over "pictures", or the mean
            of the "categories"' means.
        parameters: The values of its own parameters.
    """

    key_path = "metric"

    name: Text
    title: Text
    better: Literal["higher", "lower", "neither"]
    metric: Keys
    unit: StrictStr = ""
    definition: StrictStr = ""
    average: Literal["pictures", "categories"] = "pictures"
    parameters: Keys = field(default_factory=dict)

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return the fields and the metric's own parameters; a derived metric is refused first."""
        if values and "metric" not in values:
            raise derived(str(values.get("name")))
        return [*super().keys_of(values), *own_parameters(values)]

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Gather the parameters' values."""
        if isinstance(node := values.get("metric"), Mapping) and "_target_" not in node:
            raise problem(
                "'{path}.metric._target_' is missing",
                "it names the class that measures, such as package.module.Class",
                "Add it to the metric's file.",
            )
        parameters = {name: values.pop(name, None) for name in own_parameters(values)}
        return {**values, "parameters": parameters}


def derived(name: str) -> ConfigError:
    """Return the error for a metric that nobody can choose, since every run has it."""
    return ConfigError(
        f"The metric '{name}' measures no pictures",
        "it is derived from every run and stands in every comparison already",
        "Leave it out. 'specbench list metrics' says which measure pictures.",
    )
