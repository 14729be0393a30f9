"""The prediction for a case, as a task."""

from __future__ import annotations

from dataclasses import dataclass

from voxplain.attribution.prediction import Prediction
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.records.manifest import PredictionRecord, TaskRecord
from voxplain.records.outcome import prediction_task
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import CombinationTaskSpec
from voxplain.study.execution.store import Store
from voxplain.study.planning.tasks import Combination, TaskId
from voxplain.study.planning.time_limit import TimeLimit


@dataclass(frozen=True, kw_only=True)
class PredictionSpec(CombinationTaskSpec):
    """The prediction of a network for a case, and the score of the target.

    Attributes:
        copies: Whether to write the copies of the image and the reference of the case first.
    """

    copies: bool = False

    @property
    def id(self) -> TaskId:
        """The combination."""
        return ("prediction", *self.combination.id)

    @property
    def pending(self) -> TaskRecord:
        """That of a prediction."""
        return prediction_task(self.combination.key, *self.combination.id)

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the predicted labels of a dense output."""
        store = self.store
        if self.copies:
            self._write_copies(store, resources.image(self.common.image))
        image = resources.prepared(self.common)
        with limited(self.common.limit):
            prediction = resources.prediction(self.common)
        file = None
        if prediction.labels is not None:
            file = store.write_prediction(
                self.combination.case, self.combination.model, prediction.labels, image.source_grid
            )
        record = _record(self.combination, prediction, file)
        return TaskResult(self.id, predictions=(record,), seals=store.seals)

    def _write_copies(self, store: Store, image: Image) -> None:
        """Writes the image and the reference without any identity."""
        case = self.common.image.case
        store.write_source(self.combination.case, image)
        if case.reference is not None:
            labels = read_mask(case.reference, image.source_grid, ignore=case.reference_ignore)
            store.write_reference(self.combination.case, labels, image.source_grid)


def _record(combination: Combination, prediction: Prediction, file: str | None) -> PredictionRecord:
    return PredictionRecord(
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        in_words=prediction.in_words,
        score=prediction.score,
        probability=prediction.probability,
        image=file,
        scores=dict(prediction.scores),
        volumes=dict(prediction.volumes),
        volume_unit=prediction.volume_unit,
        key=combination.key,
        parts=combination.parts,
    )
