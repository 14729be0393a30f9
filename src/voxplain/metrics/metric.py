"""Metrics of maps and of networks, their values, and the registry that finds them by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from voxplain.declaration import Declaration
from voxplain.engine.context import Context
from voxplain.metrics.context import BaseQuery, MetricContext
from voxplain.metrics.maps import MapField
from voxplain.registry import Registry

Direction = Literal["up", "down", "none"]
"""Whether higher is better, lower is better, or neither."""


@dataclass(frozen=True)
class Value:
    """A score with the details behind it.

    Attributes:
        value: The score.
        curve: Points ``(x, y)``, where the score is the area or mean of a curve.
        facts: Details such as counts or the scores of single shifts; JSON.
        reason: Why there is no number yet; empty otherwise.
    """

    value: float
    curve: tuple[tuple[float, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class PendingScore:
    """A score that is still to be computed.

    Attributes:
        metric: The metric.
        method: Name of the map; empty for a score of the network itself.
        compute: Gives the value on one image.
    """

    metric: BaseMetric
    method: str
    compute: Callable[[MetricContext], Value]


class BaseMetric(Declaration):
    """What metrics of maps and metrics of networks have in common; fields are parameters.

    Attributes:
        direction: Whether higher or lower is better.
        range: Smallest and largest value, None where unbounded.
        unit: Of the value; empty for pure numbers.
        chance: The value of a random map, in words, where it is known.
    """

    direction: ClassVar[Direction]
    range: ClassVar[tuple[float | None, float | None]] = (None, None)
    unit: ClassVar[str] = ""
    chance: ClassVar[str] = ""

    def queries(self, context: Context) -> tuple[BaseQuery, ...]:
        """Queries to the network; equal queries of all metrics are run once."""
        return ()

    @abstractmethod
    def pending(self, fields: Sequence[MapField]) -> list[PendingScore]:
        """The scores that this metric gives for an image with these maps."""


class Metric(BaseMetric):
    """A score of one map on one image."""

    @abstractmethod
    def score(self, field: MapField, context: MetricContext) -> Value:
        """The score of a map.

        Raises:
            Undefined: With the reason, where the score does not exist.
        """

    def pending(self, fields: Sequence[MapField]) -> list[PendingScore]:
        """One score per map."""
        return [PendingScore(self, field.name, partial(self.score, field)) for field in fields]


class NetworkMetric(BaseMetric):
    """A score of the network itself on one image; it reads no map."""

    @abstractmethod
    def score(self, context: MetricContext) -> Value:
        """The score of the network.

        Raises:
            Undefined: With the reason, where the score does not exist.
        """

    def pending(self, fields: Sequence[MapField]) -> list[PendingScore]:
        """One score, whatever the maps."""
        return [PendingScore(self, "", self.score)]


metrics: Registry[BaseMetric] = Registry("metric", "voxplain.metrics")
"""Every metric by its name."""


def register(cls: type[BaseMetric]) -> type[BaseMetric]:
    """Adds a metric class to the registry under its name."""
    return metrics.add(cls.title(), cls)


parse_metric = metrics.parse
"""A metric from a name, a mapping with ``name`` and parameters, or a metric."""


def metric_key(metric: BaseMetric) -> str:
    """The name and the parameters that differ from their defaults: ``deletion, fill mean``."""
    settings = metric.model_dump(mode="json")
    changed = metric.model_dump(exclude_defaults=True, exclude={"name"})
    return ", ".join([metric.name, *(f"{name} {_in_words(settings[name])}" for name in changed)])


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    if not isinstance(value, dict):
        return str(value)
    settings = {name: own for name, own in value.items() if name != "kind" and own is not None}
    words = [f"{name} {_in_words(own)}" for name, own in settings.items()]
    return " ".join([value["kind"], *words] if "kind" in value else words)
