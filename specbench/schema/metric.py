"""What a metric's YAML file says, and which of them measure pictures.

Most metrics are derived from every run and are columns of a comparison; their files only define
them. A file with a `metric` node measures pictures: the node names a class of
`specbench.metrics`, which the runner builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specbench.errors import ConfigError
from specbench.schema.reading import Reader

BETTER = ("higher", "lower", "neither")

AVERAGES = ("pictures", "categories")
"""pictures: the mean over pictures; categories: the mean of the categories' means."""

_METRIC_KEYS = (
    "name",
    "title",
    "unit",
    "better",
    "definition",
    "average",
    "parameters",
    "metric",
)


@dataclass(frozen=True)
class MetricConfig:
    """A metric that measures pictures.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        unit: Unit of its values.
        better: "higher", "lower" or "neither".
        definition: What it is.
        metric: The node that `specbench.schema.build.instantiate` turns into a metric.
        average: For metrics with a value for each picture: "pictures" or "categories".
        parameters: The values of its own parameters.
    """

    name: str
    title: str
    unit: str
    better: str
    definition: str
    metric: Mapping[str, Any]
    average: str = "pictures"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "metric") -> MetricConfig:
        """Validate the node of one metric.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value, or if the metric is
                derived and measures nothing itself.
        """
        if isinstance(values, Mapping) and "metric" not in values:
            raise derived(str(values.get("name")))
        documentation = values.get("parameters") if isinstance(values, Mapping) else None
        names = tuple(documentation) if isinstance(documentation, Mapping) else ()
        reader = Reader(values, path, (*_METRIC_KEYS, *names))
        name = reader.text("name")
        node = reader.mapping("metric")
        if "_target_" not in node:
            raise ConfigError(
                f"'{path}.metric._target_' is missing",
                "it names the class that measures, such as package.module.Class",
                "Add it to the metric's file.",
            )
        return cls(
            name=name,
            title=reader.text("title"),
            unit=reader.text("unit", ""),
            better=reader.choice("better", BETTER),
            definition=reader.text("definition", ""),
            metric=node,
            average=reader.choice("average", AVERAGES, "pictures"),
            parameters={name: reader.get(name) for name in names},
        )


def derived(name: str) -> ConfigError:
    """Return the error for a metric that nobody can choose, since every run has it."""
    return ConfigError(
        f"The metric '{name}' measures no pictures",
        "it is derived from every run and stands in every comparison already",
        "Leave it out. 'specbench list metrics' says which measure pictures.",
    )
