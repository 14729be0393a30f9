"""The judging of the maps of one subject: what it asks of the network, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.method import Method
from voxplain.errors import ConfigError
from voxplain.metrics import Metric, OtherNetwork, Query
from voxplain.metrics.controls import CONTROLS
from voxplain.study.config.randomization import RandomizationConfig
from voxplain.study.planning.tasks import Combination, Task, digest


@dataclass(frozen=True)
class EvaluationTask:
    """Metrics on all maps of one subject.

    Attributes:
        key: Hash of everything that determines the scores, the maps included.
        combination: What was explained.
        metrics: In the order of the study.
        cascade: The cascade beside them.
        controls: Whether maps that explain nothing are judged too.
        facts: What determines the scores beyond maps and metrics: hash of the reference mask,
            other networks.
        passes: Passes through the network, as estimated.
        forwards: How many of them are forwards without a backward pass.
        streams: What is asked, in words.
    """

    key: str
    combination: Combination
    metrics: tuple[Metric, ...]
    cascade: RandomizationConfig | None
    controls: bool
    facts: Mapping[str, object]
    passes: int = 0
    forwards: int = 0
    streams: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The names of the metrics, and the cascade."""
        names = [metric.name for metric in self.metrics]
        return [*dict.fromkeys(names), *(["randomization"] if self.cascade else [])]

    def row_key(self, metric: Metric, name: str, maps: Mapping[str, str]) -> str:
        """Hash of everything that determines one score.

        Args:
            metric: What is scored.
            name: Of the map or control.
            maps: Hashes of all maps of the subject by name.
        """
        judged = {"map": maps.get(name, f"control {name}"), "name": name}
        asked = metric.model_dump(mode="json")
        together = sorted(maps.values()) if metric.family == "agreement" else []
        return digest(
            [self.combination.key, self.combination.seed, self.facts, asked, judged, together]
        )

    def cascade_key(self, maps: Mapping[str, str]) -> str:
        """Hash of everything that determines the files of the cascade."""
        asked = self.cascade.model_dump(mode="json") if self.cascade else None
        facts = self.facts if self.cascade and self.cascade.metrics else None
        return digest(
            [self.combination.key, self.combination.seed, asked, facts, sorted(maps.items())]
        )


def plan_evaluation(
    combination: Combination,
    tasks: Sequence[Task],
    metrics: Sequence[Metric],
    cascade: RandomizationConfig | None,
    controls: bool,
    facts: Mapping[str, object],
    context: Context,
    allowed: int,
    networks: Sequence[OtherNetwork] = (),
) -> EvaluationTask:
    """The judging of a subject with what it will cost.

    Args:
        combination: What is explained.
        tasks: That make its maps.
        metrics: Of the study.
        cascade: Of the study.
        controls: Whether controls are judged too.
        facts: See :class:`EvaluationTask`.
        context: The network and the image.
        allowed: Forwards that one metric may take for one map.
        networks: Other networks that metrics may ask.

    Raises:
        ConfigError: If a metric would take more.
    """
    for metric in metrics:
        _require_affordable(metric, context, allowed)
    judged = [task for task in tasks if any(map(_is_judged, task.methods.values()))]
    maps = sum(_is_judged(each) for task in judged for each in task.methods.values())
    maps += controls * (len(CONTROLS) - (facts.get("mask") is None))  # without one, no ceiling
    extra = cascade.metric.queries(context)[0] if cascade else None
    price = _EvaluationCost.of(metrics, context, maps, networks, known=extra)
    chosen_tasks = [task for task in judged if cascade and cascade.of([*task.methods.values()])]
    steps = extra.expected(context) if extra else 0
    along = _along(cascade, chosen_tasks, context, allowed, networks)
    asked = steps + 1  # the trained network beside the randomized ones
    again = [(price.again, judged), (steps + along.again * asked, chosen_tasks)]
    forwards = price.forwards + along.forwards * asked
    keys = [key for task in tasks for key in task.methods]
    chosen = [metric.model_dump(mode="json") for metric in metrics]
    shown = cascade.model_dump(mode="json") if cascade else None
    return EvaluationTask(
        key=digest([combination.key, sorted(keys), chosen, shown, controls, facts, "judging"]),
        combination=combination,
        metrics=tuple(metrics),
        cascade=cascade,
        controls=controls,
        facts=facts,
        passes=forwards + sum(n * task.passes for n, part in again for task in part),
        forwards=forwards + sum(n * task.forwards for n, part in again for task in part),
        streams=tuple(_in_words(price, steps, along)),
    )


@dataclass(frozen=True)
class _EvaluationCost:
    """What metrics ask of one network.

    Attributes:
        maps: How many are judged.
        shared: Forwards for all of them together.
        each: Forwards for each of them.
        again: How often all methods explain again.
    """

    maps: int = 0
    shared: int = 0
    each: int = 0
    again: int = 0

    @classmethod
    def of(
        cls,
        metrics: Sequence[Metric],
        context: Context,
        maps: int,
        networks: Sequence[OtherNetwork],
        known: Query | None = None,
    ) -> _EvaluationCost:
        """Equal probes count once, and one whose answer is known does not."""
        queries = {
            identity(query): query for metric in metrics for query in metric.queries(context)
        }
        queries.pop(identity(known), None)
        asked = [
            (query, query.expected(context) * query.networks(networks))
            for query in queries.values()
        ]
        return cls(
            maps,
            sum(count for query, count in asked if not (query.explains or query.per_map)),
            sum(count for query, count in asked if query.per_map and not query.explains),
            sum(count * (maps if query.per_map else 1) for query, count in asked if query.explains),
        )

    @property
    def forwards(self) -> int:
        """Of all maps."""
        return self.shared + self.each * self.maps


def _along(
    cascade: RandomizationConfig | None,
    tasks: Sequence[Task],
    context: Context,
    allowed: int,
    networks: Sequence[OtherNetwork],
) -> _EvaluationCost:
    """What the metrics of a cascade ask of each of its networks; an edge detector is judged too."""
    if cascade is None or not cascade.metrics:
        return _EvaluationCost()
    count = cascade.metric.queries(context)[0].expected(context) + 1
    for metric in cascade.metrics:
        _require_affordable(metric, context, allowed, count)
    methods = [method for task in tasks for method in cascade.of([*task.methods.values()])]
    return _EvaluationCost.of(cascade.metrics, context, sum(map(_is_judged, methods)) + 1, networks)


def _is_judged(method: Method) -> bool:
    """Maps on the grids of layers are not."""
    return method.properties().grid == "image"


def _require_affordable(metric: Metric, context: Context, allowed: int, networks: int = 1) -> None:
    once = sum(each.expected(context) for each in metric.queries(context) if not each.explains)
    if once * networks <= allowed:
        return
    where, what = metric.name, "levels, draws or regions"
    if networks > 1:
        where = f"randomization.metrics: {metric.name}, asked of {networks} networks,"
        what += ", steps or seeds"
    raise ConfigError(
        f"{where} takes about {once * networks:,} forwards for one map of an image of shape "
        f"{context.shape}, and no more than {allowed:,} are allowed; fewer {what} would do, or a "
        "higher run.max_passes (--max-passes)"
    )


def _in_words(price: _EvaluationCost, steps: int, along: _EvaluationCost) -> list[str]:
    return [
        *([f"{price.shared:,} forwards for all maps"] * bool(price.shared)),
        *([f"{price.each:,} forwards for each of {price.maps} maps"] * bool(price.each)),
        *([f"all maps {price.again:,} times again"] * bool(price.again)),
        *([f"maps of {steps:,} randomized networks"] * bool(steps)),
        *([f"{along.forwards:,} forwards for each of these"] * bool(along.forwards)),
        *([f"their maps {along.again:,} times again"] * bool(along.again)),
    ]
