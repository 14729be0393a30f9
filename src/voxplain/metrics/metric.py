"""What a metric is: a frozen declaration of what it asks and how the answers become a number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from voxplain.declaration import Declaration
from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField
from voxplain.registry import Registry

Direction = Literal["up", "down", "none"]
"""Whether higher is better, lower is better, or neither."""


@dataclass(frozen=True)
class Value:
    """A number, and what it was read from.

    Attributes:
        value: The score.
        curve: Points ``(x, y)`` where the score is the area or mean of a curve.
        facts: Chosen levels, counts and the like.
        reason: Why there is no number yet, or none.
    """

    value: float
    curve: tuple[tuple[float, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


class Metric(Declaration):
    """A score of one map on one image; its fields are its parameters.

    Attributes:
        direction: Whether higher or lower is better.
        range: Smallest and largest value, None where unbounded.
        unit: Of the value; empty for pure numbers.
        chance: The value of a random map, in words, where it is known.
        of_network: Whether it is about the network alone: one row per image, of no map.
    """

    direction: ClassVar[Direction]
    range: ClassVar[tuple[float | None, float | None]] = (None, None)
    unit: ClassVar[str] = ""
    chance: ClassVar[str] = ""
    of_network: ClassVar[bool] = False

    def queries(self, context: Context) -> tuple[Query, ...]:
        """What has to be asked of the network; equal probes are run once."""
        return ()

    @abstractmethod
    def score(self, field: MapField, context: MetricContext) -> Value:
        """The score of a map.

        Raises:
            Undefined: With the reason, where there is no such number.
        """


metrics: Registry[Metric] = Registry("metric", "voxplain.metrics")
"""Every metric by its name."""


def register(cls: type[Metric]) -> type[Metric]:
    """Adds a metric class to the registry under its name."""
    return metrics.add(cls.title(), cls)


def metric_key(metric: Metric) -> str:
    """Its name and the parameters that differ from their defaults: ``deletion, fill mean``."""
    settings = metric.model_dump(mode="json")
    changed = metric.model_dump(exclude_defaults=True, exclude={"name"})
    return ", ".join([metric.name, *(f"{name} {_in_words(settings[name])}" for name in changed)])


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    if not isinstance(value, dict):
        return str(value)
    named = {name: part for name, part in value.items() if name != "kind" and part is not None}
    parts = [f"{name} {_in_words(part)}" for name, part in named.items()]
    return " ".join([value["kind"], *parts] if "kind" in value else parts)


def parse_metric(spec: str | Mapping[str, Any] | Metric) -> Metric:
    """A metric from a name, a mapping with ``name`` and parameters, or a metric.

    Raises:
        ConfigError: With the nearest names or the exact path of the parameter.
    """
    return spec if isinstance(spec, Metric) else metrics.parse(spec)
