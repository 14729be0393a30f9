"""Judging the maps of a run as they were written: one subject at a time, a metric at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from voxplain.records.cascades import write_randomization
from voxplain.records.manifest import Manifest, MapRecord
from voxplain.records.scores import Score, Scores
from voxplain.records.sidecar import Sidecar
from voxplain.study.config.randomization import cascade
from voxplain.study.execution.evaluation_inputs import EvaluationInputs
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.score_cache import ScoreCache
from voxplain.study.execution.store import Store
from voxplain.study.execution.time_limit import reason_of, time_limit
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination, digest


class Evaluator:
    """Scores the maps of a run directory, and keeps what is finished.

    What fails is a row with its reason, and is tried again by the next run.

    Args:
        store: The run directory.
        private: Filters every reason.
        limit: Seconds that one metric may take on one subject; None for no limit.
        listener: Is told of failures.
        fresh: Whether to forget what an earlier run has left.
    """

    def __init__(
        self,
        store: Store,
        private: Redactor,
        limit: float | None,
        listener: Listener,
        fresh: bool = False,
    ) -> None:
        self._store, self._private, self._limit = store, private, limit
        self._listener, self._fresh = listener, fresh
        self._caches: dict[str, ScoreCache] = {}

    def finished(self, evaluation: EvaluationTask, records: Sequence[MapRecord]) -> Scores | None:
        """The scores of a subject, if an earlier run has finished them as they stand now."""
        maps, cache = maps_on_image_grid(records), self._cache(evaluation.combination)
        if not cache.is_marked("all", digest([evaluation.key, sorted(maps.items())])):
            return None
        names = (*maps, *(CONTROLS if evaluation.controls else ()))
        keys = [
            evaluation.row_key(metric, name, maps)
            for metric in _metrics(evaluation)
            for name in ([""] if isinstance(metric, NetworkMetric) else names)
        ]
        rows = (cache.get(key) for key in keys)
        return Scores(tuple(_named(row, evaluation.combination) for row in rows if row is not None))

    def evaluator(
        self, evaluation: EvaluationTask, records: Sequence[MapRecord], inputs: EvaluationInputs
    ) -> tuple[Scores, str]:
        """The scores of a subject, not yet concluded over cases, and what failed in words.

        Args:
            evaluation: What to do.
            records: The maps of this subject.
            inputs: The image, the network and what else there is.

        Raises:
            ConfigError: If there is no map to judge.
        """
        combination, maps, cache = (
            evaluation.combination,
            maps_on_image_grid(records),
            self._cache(evaluation.combination),
        )
        if not maps:
            raise ConfigError("there is no map on the grid of the image that could be judged")
        given = {
            record.label: self._read(record, inputs)
            for record in records
            if record.label in maps and record.layer is None
        }
        context = Context.open(inputs.model, inputs.image)
        metric_context = MetricContext.open(
            context,
            context.bind(combination.target),
            given,
            Case(combination.case, combination.patient, inputs.truth, inputs.mask),
            references=inputs.references or None,
            networks=inputs.networks,
            seed=combination.draw_seed,
        )
        scorer = MapScorer.of(metric_context, evaluation.controls, combination.seed)
        failures = [self._cascade(evaluation, scorer, cache, maps)]
        rows: list[Score] = []
        for done, metric in enumerate(_metrics(evaluation), start=1):
            found, reason = self._metric(evaluation, metric, scorer, cache, maps)
            rows += found
            failures.append(reason and f"{metric.name}: {reason}")
            self._listener.passed(done, len(_metrics(evaluation)))
        said = list(dict.fromkeys(filter(None, failures)))
        if not said:
            cache.mark("all", digest([evaluation.key, sorted(maps.items())]))
        return Scores(tuple(rows)), "; ".join(said)

    def _metric(
        self,
        evaluation: EvaluationTask,
        metric: BaseMetric,
        scorer: MapScorer,
        cache: ScoreCache,
        maps: Mapping[str, str],
    ) -> tuple[list[Score], str]:
        """A row per map; those that could not be scored say why, and are not kept."""
        scores, rows, reason = _pending(metric, evaluation, scorer), [], ""
        new: dict[str, Score] = {}
        try:
            with time_limit(self._limit):
                for pending in scores:
                    key = evaluation.row_key(metric, pending.method, maps)
                    known = cache.get(key)
                    if known is None:
                        known = new[key] = self._row(scorer.score(pending), evaluation.combination)
                    rows.append(_named(known, evaluation.combination))
        except Exception as error:
            self._listener.failed(error)
            reason = self._private(reason_of(error, self._limit))
            missing = (scorer.undefined(pending, reason) for pending in scores[len(rows) :])
            rows += [self._row(row, evaluation.combination) for row in missing]
        cache.add(new)
        return rows, reason

    def _cascade(
        self,
        evaluation: EvaluationTask,
        scorer: MapScorer,
        cache: ScoreCache,
        maps: Mapping[str, str],
    ) -> str | None:
        """Runs and writes the cascade; returns why it failed."""
        key = evaluation.cascade_key(maps)
        if evaluation.cascade is None or cache.is_marked("cascade", key):
            return None
        try:
            with time_limit(self._limit):
                record, pictures = cascade(
                    evaluation.cascade, scorer.context, evaluation.combination.case
                )
            named = {"model": evaluation.combination.model, "target": evaluation.combination.slug}
            write_randomization(
                self._store.folder, record.model_copy(update=named), pictures or None
            )
        except Exception as error:
            self._listener.failed(error)
            return f"randomization: {self._private(reason_of(error, self._limit))}"
        cache.mark("cascade", key)
        return None

    def _read(self, record: MapRecord, inputs: EvaluationInputs) -> ExternalMap:
        """A map from its file, with what its sidecar says of it."""
        text = (self._store.folder / record.sidecar).read_text(encoding="utf-8")
        sidecar = Sidecar.model_validate_json(text)
        return read_map(
            self._store.folder / record.file,
            inputs.image,
            sign=sidecar.sign,
            share="per unit" not in sidecar.units,
            resampling=sidecar.resampling,
            method=inputs.methods.get(record.label),
            completeness=sidecar.completeness,
        )

    def _row(self, row: Score, combination: Combination) -> Score:
        return _named(replace(row, reason=self._private(row.reason)), combination)

    def _cache(self, combination: Combination) -> ScoreCache:
        if combination.key not in self._caches:
            self._caches[combination.key] = ScoreCache(
                self._store.folder, combination.key, self._fresh
            )
        return self._caches[combination.key]


def maps_on_image_grid(records: Sequence[MapRecord]) -> dict[str, str]:
    """The hashes of the maps that lie on the grid of the image, by their names."""
    return {record.label: record.key for record in records if record.layer is None}


def maps_of(manifest: Manifest, combination: Combination) -> list[MapRecord]:
    """The maps of a subject, in the order of the run."""
    asked = (combination.case, combination.model, combination.slug)
    return [each for each in manifest.maps if (each.case, each.model, each.target) == asked]


def left_out(records: Sequence[MapRecord]) -> list[str]:
    """What is not judged, in words."""
    layers = sorted({record.label for record in records if record.layer is not None})
    text = "maps on the grids of layers are not judged"
    return [f"{text}: {', '.join(layers)}"] if layers else []


def _metrics(evaluation: EvaluationTask) -> list[BaseMetric]:
    """Those of the study; the curves of the cascade go into the table too."""
    extra = evaluation.cascade.metric if evaluation.cascade else None
    listed: list[BaseMetric] = [metric for metric in evaluation.metrics if metric != extra]
    return [*listed, *([extra] if extra else [])]


def _pending(
    metric: BaseMetric, evaluation: EvaluationTask, scorer: MapScorer
) -> list[PendingScore]:
    """The scores of all maps and controls; of a cascade only those of its maps."""
    cascade = evaluation.cascade
    if cascade is None or metric != cascade.metric:
        return scorer.pending(metric)
    chosen = {method.key for method in cascade.of(scorer.context.methods)}
    fields = scorer.context.fields.values()
    return metric.pending([field for field in fields if field.name in chosen])


def _named(row: Score, combination: Combination) -> Score:
    return replace(
        row,
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        patient=combination.patient,
    )
