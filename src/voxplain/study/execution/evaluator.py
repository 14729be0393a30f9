"""The evaluation of the maps of one combination, read back as they were written."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from voxplain.engine.context import Context
from voxplain.errors import ConfigError
from voxplain.metrics import (
    BaseMetric,
    Case,
    ExternalMap,
    MapScorer,
    MetricContext,
    NetworkMetric,
    PendingScore,
    read_map,
)
from voxplain.metrics.controls import CONTROLS
from voxplain.metrics.randomization import recorded
from voxplain.records.cascades import write_randomization
from voxplain.records.manifest import FamilyPrecision, Manifest, MapRecord
from voxplain.records.scores import Score, Scores
from voxplain.records.sidecar import Sidecar
from voxplain.study.config.randomization import RandomizationConfig
from voxplain.study.execution.earlier_results import ScoreCache
from voxplain.study.execution.evaluation_inputs import EvaluationInputs
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import TaskListener
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination
from voxplain.study.planning.time_limit import TimeLimit, reason_of


@dataclass(eq=False)
class Evaluator:
    """Scores the maps of one combination, and keeps every score that is finished.

    A metric that fails is a row with its reason, and is tried again by the next run.

    Attributes:
        folder: The run directory.
        task: What to do.
        records: The maps of the combination.
        cache: Its finished scores.
        private: Filters every reason.
        limit: Seconds that one metric may take; None for no limit.
        time_limit: Ends a metric after that time.
        listener: Callbacks.
        given_up: Metrics that cannot be done, by their number, and why; 0 is the randomization.
        families: The precision in which changed images were scored, after a run; empty where none
            but that of the network was asked for.
    """

    folder: Path
    task: EvaluationTask
    records: Sequence[MapRecord]
    cache: ScoreCache
    private: Redactor
    limit: float | None
    time_limit: TimeLimit
    listener: TaskListener
    given_up: Mapping[int, str] = field(default_factory=dict)
    families: Mapping[str, FamilyPrecision] = field(default_factory=dict)

    def run(self, inputs: EvaluationInputs) -> tuple[Scores, str]:
        """The scores, those of cross-case metrics still open, and what failed in words.

        Args:
            inputs: The image, the network and what else the metrics compare with.

        Raises:
            ConfigError: If no map lies on the grid of the image.
        """
        if not self._keys:
            raise ConfigError("there is no map on the grid of the image that could be scored")
        scorer = self._scorer(inputs)
        failures = [self._randomize(scorer)]
        rows: list[Score] = []
        metrics = _metrics(self.task)
        for number, metric in enumerate(metrics, start=1):
            self.listener.began(number)
            metric_rows, reason = self._score(metric, scorer, self.given_up.get(number))
            rows += metric_rows
            failures.append(reason and f"{metric.name}: {reason}")
            self.listener.passed(number, len(metrics))
        reasons = list(dict.fromkeys(filter(None, failures)))
        self.families = FamilyPrecision.by_family(
            ("metrics", FamilyPrecision(precision=precision, agreement=agreement))
            for precision, agreement in scorer.context.agreements
        )
        if not reasons:
            self.cache.mark("all", self.task.scores_key(self._keys))
        return Scores(tuple(rows)), "; ".join(reasons)

    @cached_property
    def _keys(self) -> dict[str, str]:
        return keys_on_image_grid(self.records)

    def _scorer(self, inputs: EvaluationInputs) -> MapScorer:
        """The maps and controls on the grid of the network."""
        combination = self.task.combination
        maps = {
            record.label: self._read(record, inputs)
            for record in self.records
            if record.layer is None
        }
        context = Context.open(inputs.model, inputs.image, combination.draw_seed)
        metric_context = MetricContext.open(
            context,
            context.bind(combination.target),
            maps,
            Case(combination.case, combination.patient, inputs.truth, inputs.mask, inputs.ignore),
            references=inputs.references or None,
            networks=inputs.networks,
            seed=combination.draw_seed,
        )
        return MapScorer.of(metric_context, self.task.controls, combination.seed)

    def _score(
        self, metric: BaseMetric, scorer: MapScorer, given_up: str | None
    ) -> tuple[list[Score], str]:
        """A row per map; rows of a metric that fails say why, and are not kept."""
        scores, rows, reason = _pending(metric, self.task, scorer), [], ""
        if given_up is not None:
            return [self._row(scorer.undefined(each, given_up)) for each in scores], given_up
        new: dict[str, Score] = {}
        try:
            with self.time_limit(self.limit):
                for pending in scores:
                    key = self.task.row_key(metric, pending.method, self._keys)
                    row = self.cache.get(key)
                    if row is None:
                        row = new[key] = self._row(scorer.score(pending))
                    rows.append(_labeled(row, self.task.combination))
        except Exception as error:
            self.listener.failed(error)
            reason = self.private(reason_of(error, self.limit))
            missing = (scorer.undefined(pending, reason) for pending in scores[len(rows) :])
            rows += [self._row(row) for row in missing]
        self.cache.add(new)
        return rows, reason

    def _randomize(self, scorer: MapScorer) -> str | None:
        """Runs the parameter randomization and writes its files; returns why it failed."""
        cascade, combination = self.task.cascade, self.task.combination
        key = self.task.cascade_key(self._keys)
        if cascade is None or self.cache.is_marked("cascade", key):
            return None
        if 0 in self.given_up:
            return f"randomization: {self.given_up[0]}"
        self.listener.began(0)
        try:
            with self.time_limit(self.limit):
                _run_cascade(cascade, scorer.context, combination, self.folder)
        except Exception as error:
            self.listener.failed(error)
            return f"randomization: {self.private(reason_of(error, self.limit))}"
        self.cache.mark("cascade", key)
        return None

    def _read(self, record: MapRecord, inputs: EvaluationInputs) -> ExternalMap:
        """A map from its file, with what its sidecar says of it."""
        text = (self.folder / record.sidecar).read_text(encoding="utf-8")
        sidecar = Sidecar.model_validate_json(text)
        return read_map(
            self.folder / record.file,
            inputs.image,
            sign=sidecar.sign,
            share="per unit" not in sidecar.units,
            resampling=sidecar.resampling,
            method=inputs.methods.get(record.label),
            completeness=sidecar.completeness,
        )

    def _row(self, row: Score) -> Score:
        return _labeled(replace(row, reason=self.private(row.reason)), self.task.combination)


def finished_scores(
    task: EvaluationTask, records: Sequence[MapRecord], cache: ScoreCache
) -> Scores | None:
    """The scores of a combination, if an earlier run has finished all of them as they stand now.

    Args:
        task: What is scored.
        records: The maps of the combination.
        cache: Its finished scores.
    """
    keys = keys_on_image_grid(records)
    if not cache.is_marked("all", task.scores_key(keys)):
        return None
    names = (*keys, *(CONTROLS if task.controls else ()))
    row_keys = [
        task.row_key(metric, name, keys)
        for metric in _metrics(task)
        for name in ([""] if isinstance(metric, NetworkMetric) else names)
    ]
    rows = (cache.get(key) for key in row_keys)
    return Scores(tuple(_labeled(row, task.combination) for row in rows if row is not None))


def keys_on_image_grid(records: Sequence[MapRecord]) -> dict[str, str]:
    """The hashes of the maps that lie on the grid of the image, by their names."""
    return {record.label: record.key for record in records if record.layer is None}


def maps_of(manifest: Manifest, combination: Combination) -> list[MapRecord]:
    """The maps of a combination, in the order of the run."""
    return [
        record
        for record in manifest.maps
        if (record.case, record.model, record.target) == combination.id
    ]


def not_scored(records: Sequence[MapRecord]) -> list[str]:
    """Which maps are not scored, in words."""
    layers = sorted({record.label for record in records if record.layer is not None})
    text = "maps on the grids of layers are not scored"
    return [f"{text}: {', '.join(layers)}"] if layers else []


def _metrics(task: EvaluationTask) -> list[BaseMetric]:
    """The metrics of the study, and the one that puts the curves of the cascade into the table."""
    extra = task.cascade.metric if task.cascade else None
    listed: list[BaseMetric] = [metric for metric in task.metrics if metric != extra]
    return [*listed, *([extra] if extra else [])]


def _pending(metric: BaseMetric, task: EvaluationTask, scorer: MapScorer) -> list[PendingScore]:
    """The scores of all maps and controls; of the metric of the cascade only those of its maps."""
    cascade = task.cascade
    if cascade is None or metric != cascade.metric:
        return scorer.pending(metric)
    labels = {method.key for method in cascade.chosen(scorer.context.methods)}
    fields = scorer.context.fields.values()
    return metric.pending([field for field in fields if field.name in labels])


def _run_cascade(
    cascade: RandomizationConfig, context: MetricContext, combination: Combination, folder: Path
) -> None:
    """Writes the files of a parameter randomization, and caches its curves for the metric."""
    chosen = copy.copy(context)
    chosen.methods = tuple(cascade.chosen(context.methods))
    steps = cascade.query.run(chosen)
    (query,) = cascade.metric.queries(context.engine)
    context.keep_result(query, steps)
    record, pictures = recorded(context, steps, cascade.order, combination.case, cascade.metrics)
    names = {"model": combination.model, "target": combination.slug}
    write_randomization(folder, record.model_copy(update=names), pictures or None)


def _labeled(row: Score, combination: Combination) -> Score:
    return replace(
        row,
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        patient=combination.patient,
    )
