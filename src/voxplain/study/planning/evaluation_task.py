"""The evaluation of the maps of one combination: what it costs, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.method import Method
from voxplain.errors import ConfigError
from voxplain.metrics import BaseMetric, OtherNetwork, Query
from voxplain.metrics.controls import CONTROLS
from voxplain.study.config.randomization import RandomizationConfig
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId, TaskKind, digest


@dataclass(frozen=True)
class EvaluationTask:
    """Metrics on all maps of one combination.

    Attributes:
        key: Hash of everything that determines the scores, the maps included.
        combination: What was explained.
        metrics: In the order of the study.
        cascade: The parameter randomization, if the study asks for one.
        controls: Whether controls are scored too.
        facts: What determines the scores beyond maps and metrics: hash of the reference mask,
            other networks.
        passes: Estimated passes through the network.
        forwards: How many of them are forwards without a backward pass.
        streams: What the metrics need, in words.
    """

    kind: ClassVar[TaskKind] = "metrics"

    key: str
    combination: Combination
    metrics: tuple[BaseMetric, ...]
    cascade: RandomizationConfig | None
    controls: bool
    facts: Mapping[str, object]
    passes: int = 0
    forwards: int = 0
    streams: tuple[str, ...] = ()

    @property
    def place(self) -> CombinationId:
        """Case, network and target by their names."""
        return self.combination.id

    @property
    def target_in_words(self) -> str:
        """What is explained."""
        return str(self.combination.named)

    @property
    def id(self) -> TaskId:
        """What tells it from every other task of the run."""
        return (self.kind, *self.combination.id)

    @property
    def labels(self) -> list[str]:
        """The names of the metrics, and of the parameter randomization."""
        names = [metric.name for metric in self.metrics]
        return [*dict.fromkeys(names), *(["randomization"] if self.cascade else [])]

    def row_key(self, metric: BaseMetric, name: str, maps: Mapping[str, str]) -> str:
        """Hash of everything that determines one score.

        Args:
            metric: What is scored.
            name: Of the map or control.
            maps: Hashes of all maps of the combination by name.
        """
        scored_map = {"map": maps.get(name, f"control {name}"), "name": name}
        declaration = metric.model_dump(mode="json")
        compared = sorted(maps.values()) if metric.family == "agreement" else []
        combination = self.combination
        return digest(
            [combination.key, combination.seed, self.facts, declaration, scored_map, compared]
        )

    def cascade_key(self, maps: Mapping[str, str]) -> str:
        """Hash of everything that determines the files of the parameter randomization."""
        declaration = self.cascade.model_dump(mode="json") if self.cascade else None
        facts = self.facts if self.cascade and self.cascade.metrics else None
        combination = self.combination
        return digest([combination.key, combination.seed, declaration, facts, sorted(maps.items())])

    def scores_key(self, maps: Mapping[str, str]) -> str:
        """Hash of everything that determines all scores of these maps."""
        return digest([self.key, sorted(maps.items())])


def plan_evaluation(
    combination: Combination,
    tasks: Sequence[Task],
    metrics: Sequence[BaseMetric],
    cascade: RandomizationConfig | None,
    controls: bool,
    facts: Mapping[str, object],
    context: Context,
    max_forwards: int,
    networks: Sequence[OtherNetwork] = (),
) -> EvaluationTask:
    """The evaluation of a combination, with its cost.

    Args:
        combination: What is explained.
        tasks: The explanations that make its maps.
        metrics: Of the study.
        cascade: The parameter randomization of the study.
        controls: Whether controls are scored too.
        facts: See :class:`EvaluationTask`.
        context: The network and the image.
        max_forwards: Forwards that one metric may take for one map.
        networks: Other networks that metrics may compare with.

    Raises:
        ConfigError: If a metric would take more forwards.
    """
    for metric in metrics:
        _require_affordable(metric, context, max_forwards)
    scored_tasks = [task for task in tasks if any(map(_is_scored, task.methods.values()))]
    maps = sum(_is_scored(method) for task in scored_tasks for method in task.methods.values())
    maps += controls * (len(CONTROLS) - (facts.get("mask") is None))  # without a mask, no ceiling
    query = cascade.metric.queries(context)[0] if cascade else None
    cost = _EvaluationCost.of(metrics, context, maps, networks, planned=query)
    chosen_tasks = [task for task in scored_tasks if cascade and _chosen(cascade, task)]
    steps = query.cost(context) if query else 0
    step_cost = _cost_per_step(cascade, chosen_tasks, context, max_forwards, networks)
    step_networks = steps + 1  # the trained network beside the randomized ones
    repeats = [
        (cost.explanations, scored_tasks),
        (steps + step_cost.explanations * step_networks, chosen_tasks),
    ]
    forwards = cost.forwards + step_cost.forwards * step_networks
    return EvaluationTask(
        key=_key(combination, tasks, metrics, cascade, controls, facts),
        combination=combination,
        metrics=tuple(metrics),
        cascade=cascade,
        controls=controls,
        facts=facts,
        passes=forwards + sum(n * task.passes for n, repeated in repeats for task in repeated),
        forwards=forwards + sum(n * task.forwards for n, repeated in repeats for task in repeated),
        streams=tuple(_in_words(cost, steps, step_cost)),
    )


@dataclass(frozen=True)
class _EvaluationCost:
    """What metrics take of one network.

    Attributes:
        maps: How many are scored.
        shared: Forwards for all of them together.
        per_map: Forwards for each of them.
        explanations: How often all methods explain again.
    """

    maps: int = 0
    shared: int = 0
    per_map: int = 0
    explanations: int = 0

    @classmethod
    def of(
        cls,
        metrics: Sequence[BaseMetric],
        context: Context,
        maps: int,
        networks: Sequence[OtherNetwork],
        planned: Query | None = None,
    ) -> _EvaluationCost:
        """The cost of metrics whose equal queries run once, without one that is planned anyway."""
        queries = {
            identity(query): query for metric in metrics for query in metric.queries(context)
        }
        queries.pop(identity(planned), None)
        counts = [
            (query, query.cost(context) * query.networks(networks)) for query in queries.values()
        ]
        return cls(
            maps,
            sum(count for query, count in counts if not (query.explains or query.per_map)),
            sum(count for query, count in counts if query.per_map and not query.explains),
            sum(
                count * (maps if query.per_map else 1) for query, count in counts if query.explains
            ),
        )

    @property
    def forwards(self) -> int:
        """Forwards for all maps."""
        return self.shared + self.per_map * self.maps


def _cost_per_step(
    cascade: RandomizationConfig | None,
    tasks: Sequence[Task],
    context: Context,
    max_forwards: int,
    networks: Sequence[OtherNetwork],
) -> _EvaluationCost:
    """The cost of the metrics at one step of a cascade; an edge detector is scored too."""
    if cascade is None or not cascade.metrics:
        return _EvaluationCost()
    step_networks = cascade.metric.queries(context)[0].cost(context) + 1
    for metric in cascade.metrics:
        _require_affordable(metric, context, max_forwards, step_networks)
    scored = [method for task in tasks for method in _chosen(cascade, task) if _is_scored(method)]
    return _EvaluationCost.of(cascade.metrics, context, len(scored) + 1, networks)


def _chosen(cascade: RandomizationConfig, task: Task) -> list[Method]:
    """The methods of a task whose maps go through the cascade."""
    return cascade.chosen([*task.methods.values()])


def _is_scored(method: Method) -> bool:
    """Whether its maps lie on the grid of the image; maps on the grids of layers are not scored."""
    return method.properties().grid == "image"


def _key(
    combination: Combination,
    tasks: Sequence[Task],
    metrics: Sequence[BaseMetric],
    cascade: RandomizationConfig | None,
    controls: bool,
    facts: Mapping[str, object],
) -> str:
    methods = sorted(key for task in tasks for key in task.methods)
    metric_settings = [metric.model_dump(mode="json") for metric in metrics]
    cascade_settings = cascade.model_dump(mode="json") if cascade else None
    # The last word is what it was in the first version, so that old runs are taken up again.
    return digest(
        [combination.key, methods, metric_settings, cascade_settings, controls, facts, "evaluation"]
    )


def _require_affordable(
    metric: BaseMetric, context: Context, max_forwards: int, networks: int = 1
) -> None:
    """Refuses a metric that takes more forwards for one map, over all networks, than allowed."""
    once = sum(query.cost(context) for query in metric.queries(context) if not query.explains)
    if once * networks <= max_forwards:
        return
    where, settings = metric.name, "levels, draws or regions"
    if networks > 1:
        where = f"randomization.metrics: {metric.name}, for {networks} networks,"
        settings += ", steps or seeds"
    raise ConfigError(
        f"{where} takes about {once * networks:,} forwards for one map of an image of shape "
        f"{context.shape}, and no more than {max_forwards:,} are allowed; fewer {settings} would "
        "do, or a higher run.max_passes (--max-passes)"
    )


def _in_words(cost: _EvaluationCost, steps: int, step_cost: _EvaluationCost) -> list[str]:
    return [
        *([f"{cost.shared:,} forwards for all maps"] * bool(cost.shared)),
        *([f"{cost.per_map:,} forwards for each of {cost.maps} maps"] * bool(cost.per_map)),
        *([f"all maps {cost.explanations:,} times again"] * bool(cost.explanations)),
        *([f"maps of {steps:,} randomized networks"] * bool(steps)),
        *([f"{step_cost.forwards:,} forwards for each of these"] * bool(step_cost.forwards)),
        *([f"their maps {step_cost.explanations:,} times again"] * bool(step_cost.explanations)),
    ]
