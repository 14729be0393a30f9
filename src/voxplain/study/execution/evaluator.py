"""Judging the maps of a run as they were written: one subject at a time, a metric at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from voxplain.errors import ConfigError
from voxplain.metrics import ExternalMap, Metric, read_map
from voxplain.metrics.context import metric_context
from voxplain.metrics.controls import CONTROLS
from voxplain.metrics.map_field import MapField
from voxplain.metrics.scoring import NETWORK, MapScorer
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
        self._memos: dict[str, ScoreCache] = {}

    def finished(self, judging: EvaluationTask, records: Sequence[MapRecord]) -> Scores | None:
        """The scores of a subject, if an earlier run has finished them as they stand now."""
        maps, memo = maps_on_image_grid(records), self._memo(judging.subject)
        if not memo.is_marked("all", digest([judging.key, sorted(maps.items())])):
            return None
        names = (*maps, *(CONTROLS if judging.controls else ()))
        keys = [
            judging.row_key(metric, name, maps)
            for metric in _metrics(judging)
            for name in ((NETWORK.name,) if metric.of_network else names)
        ]
        rows = (memo.get(key) for key in keys)
        return Scores(tuple(_named(row, judging.subject) for row in rows if row is not None))

    def judge(
        self, judging: EvaluationTask, records: Sequence[MapRecord], materials: EvaluationInputs
    ) -> tuple[Scores, str]:
        """The scores of a subject, not yet concluded over cases, and what failed in words.

        Args:
            judging: What to do.
            records: The maps of this subject.
            materials: The image, the network and what else there is.

        Raises:
            ConfigError: If there is no map to judge.
        """
        subject, maps, memo = (
            judging.subject,
            maps_on_image_grid(records),
            self._memo(judging.subject),
        )
        if not maps:
            raise ConfigError("there is no map on the grid of the image that could be judged")
        given = {
            record.label: self._read(record, materials)
            for record in records
            if record.label in maps and record.layer is None
        }
        question = metric_context(
            materials.model,
            materials.image,
            subject.target,
            materials.mask,
            materials.references or None,
            subject.draw_seed,
            given,
            materials.networks,
            materials.truth,
        )
        panel = MapScorer.of(
            question, given, judging.controls, subject.case, subject.seed, subject.patient
        )
        failures = [self._cascade(judging, panel, memo, maps)]
        rows: list[Score] = []
        for done, metric in enumerate(_metrics(judging), start=1):
            found, reason = self._metric(judging, metric, panel, memo, maps)
            rows += found
            failures.append(reason and f"{metric.name}: {reason}")
            self._listener.passed(done, len(_metrics(judging)))
        said = list(dict.fromkeys(filter(None, failures)))
        if not said:
            memo.mark("all", digest([judging.key, sorted(maps.items())]))
        return Scores(tuple(rows)), "; ".join(said)

    def _metric(
        self,
        judging: EvaluationTask,
        metric: Metric,
        panel: MapScorer,
        memo: ScoreCache,
        maps: Mapping[str, str],
    ) -> tuple[list[Score], str]:
        """A row per map; those that could not be scored say why, and are not kept."""
        fields, rows, reason = _judged_by(metric, judging, panel), [], ""
        new: dict[str, Score] = {}
        try:
            with time_limit(self._limit):
                for field in fields:
                    key = judging.row_key(metric, field.name, maps)
                    known = memo.get(key)
                    if known is None:
                        known = new[key] = self._row(panel.score(metric, field), judging.subject)
                    rows.append(_named(known, judging.subject))
        except Exception as error:
            self._listener.failed(error)
            reason = self._private(reason_of(error, self._limit))
            missing = (panel.undefined(metric, field, reason) for field in fields[len(rows) :])
            rows += [self._row(row, judging.subject) for row in missing]
        memo.add(new)
        return rows, reason

    def _cascade(
        self, judging: EvaluationTask, panel: MapScorer, memo: ScoreCache, maps: Mapping[str, str]
    ) -> str | None:
        """Runs and writes the cascade; returns why it failed."""
        key = judging.cascade_key(maps)
        if judging.cascade is None or memo.is_marked("cascade", key):
            return None
        try:
            with time_limit(self._limit):
                record, pictures = cascade(judging.cascade, panel.question, judging.subject.case)
            named = {"model": judging.subject.model, "target": judging.subject.slug}
            write_randomization(
                self._store.folder, record.model_copy(update=named), pictures or None
            )
        except Exception as error:
            self._listener.failed(error)
            return f"randomization: {self._private(reason_of(error, self._limit))}"
        memo.mark("cascade", key)
        return None

    def _read(self, record: MapRecord, materials: EvaluationInputs) -> ExternalMap:
        """A map from its file, with what its sidecar says of it."""
        text = (self._store.folder / record.sidecar).read_text(encoding="utf-8")
        sidecar = Sidecar.model_validate_json(text)
        return read_map(
            self._store.folder / record.file,
            materials.image,
            sign=sidecar.sign,
            share="per unit" not in sidecar.units,
            resampling=sidecar.resampling,
            method=materials.methods.get(record.label),
            completeness=sidecar.completeness,
        )

    def _row(self, row: Score, subject: Combination) -> Score:
        return _named(replace(row, reason=self._private(row.reason)), subject)

    def _memo(self, subject: Combination) -> ScoreCache:
        if subject.key not in self._memos:
            self._memos[subject.key] = ScoreCache(self._store.folder, subject.key, self._fresh)
        return self._memos[subject.key]


def maps_on_image_grid(records: Sequence[MapRecord]) -> dict[str, str]:
    """The hashes of the maps that lie on the grid of the image, by their names."""
    return {record.label: record.key for record in records if record.layer is None}


def maps_of(manifest: Manifest, subject: Combination) -> list[MapRecord]:
    """The maps of a subject, in the order of the run."""
    asked = (subject.case, subject.model, subject.slug)
    return [each for each in manifest.maps if (each.case, each.model, each.target) == asked]


def left_out(records: Sequence[MapRecord]) -> list[str]:
    """What is not judged, in words."""
    layers = sorted({record.label for record in records if record.layer is not None})
    text = "maps on the grids of layers are not judged"
    return [f"{text}: {', '.join(layers)}"] if layers else []


def _metrics(judging: EvaluationTask) -> list[Metric]:
    """Those of the study; the curves of the cascade go into the table too."""
    extra = judging.cascade.metric if judging.cascade else None
    listed: list[Metric] = [metric for metric in judging.metrics if metric != extra]
    return [*listed, *([extra] if extra else [])]


def _judged_by(metric: Metric, judging: EvaluationTask, panel: MapScorer) -> list[MapField]:
    """All maps and controls; of a cascade the maps that were asked for."""
    asked = judging.cascade
    if asked is None or metric != asked.metric:
        return list(panel.judged_by(metric))
    chosen = {method.key for method in asked.of(panel.question.methods)}
    return [field for field in panel.fields if field.name in chosen]


def _named(row: Score, subject: Combination) -> Score:
    return replace(
        row,
        case=subject.case,
        model=subject.model,
        target=subject.slug,
        patient=subject.patient,
    )
