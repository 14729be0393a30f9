"""What a run has so far: records of tasks, predictions and maps, found by what they are of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from voxplain.io.facts import software
from voxplain.records.manifest import (
    AnalysisRecord,
    FamilyPrecision,
    Manifest,
    MapRecord,
    ModelRecord,
    PredictionRecord,
    TaskRecord,
)
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.specs.spec import task_record
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.networks import device_name
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId


class Results:
    """The records of a run in progress.

    Args:
        checked: What the run does.
        manifest: Without tasks, predictions and maps.
        tasks: Of the plan.

    Attributes:
        manifest: In which they are put when it is :meth:`ordered`.
        has_new_maps: Whether a task of this run has made maps.
    """

    def __init__(
        self,
        checked: CheckedStudy,
        manifest: Manifest,
        tasks: Mapping[TaskId, AnyTask],
    ) -> None:
        self.manifest, self.has_new_maps = manifest, False
        self._combinations = [combination.id for combination in checked.combinations]
        self._order = {
            key: number for number, task in enumerate(checked.plan.tasks) for key in task.methods
        }
        self._records = {key: task_record(task) for key, task in tasks.items()}
        self._predictions: dict[CombinationId, PredictionRecord] = {}
        self._failed_predictions: dict[CombinationId, TaskRecord] = {}
        self._maps: dict[CombinationId, list[MapRecord]] = defaultdict(list)
        self._analyses: dict[str, AnalysisRecord] = {}
        self._folders = [task.folder for task in checked.plan.analyses]

    @property
    def done(self) -> list[TaskRecord]:
        """The records of the tasks that are done."""
        return [record for record in self._records.values() if record.status == "done"]

    @property
    def ended(self) -> list[TaskRecord]:
        """The records of the tasks that are done or have failed."""
        return [record for record in self._records.values() if record.status != "pending"]

    def is_done(self, task: TaskId) -> bool:
        """Whether a task is done."""
        return self._records[task].status == "done"

    def is_predicted(self, combination: Combination) -> bool:
        """Whether there is a prediction for a combination."""
        return combination.id in self._predictions

    def maps_of(self, combination: Combination) -> list[MapRecord]:
        """The maps of a combination, in the order of the plan."""
        return sorted(self._maps[combination.id], key=self._place)

    def missing(self, task: Task) -> Task:
        """The same task without the methods whose maps are there."""
        return task.without({record.key for record in self._maps[task.combination.id]})

    def add_prediction(self, record: PredictionRecord) -> None:
        """Adds a prediction."""
        self._predictions[record.case, record.model, record.target] = record

    def add_failed_prediction(self, record: TaskRecord) -> None:
        """Adds the record of a task that failed to make a prediction."""
        self._failed_predictions[record.case, record.model, record.target] = record

    def add_maps(self, records: Sequence[MapRecord]) -> None:
        """Adds maps."""
        for record in records:
            self._maps[record.case, record.model, record.target].append(record)

    def add_analyses(self, records: Sequence[AnalysisRecord]) -> None:
        """Adds analyses."""
        self._analyses.update({record.folder: record for record in records})

    def settle(self, task: TaskId, record: TaskRecord) -> None:
        """Puts the record of a task that has ended in place of the one before."""
        self._records[task] = record

    def ordered(self) -> Manifest:
        """The manifest with all records, in the order of the plan."""
        self.manifest.tasks = [*self._records.values(), *self._unexplained_failures()]
        self.manifest.predictions = [
            self._predictions[each] for each in self._combinations if each in self._predictions
        ]
        self.manifest.maps = [
            record
            for each in self._combinations
            for record in sorted(self._maps[each], key=self._place)
        ]
        self.manifest.analyses = [
            self._analyses[folder] for folder in self._folders if folder in self._analyses
        ]
        for model in self.manifest.models:
            model.precision = _precision_of(model, self.manifest.maps)
            made = [each.families for each in self.manifest.maps if each.model == model.name]
            made += [each.families for each in self.manifest.tasks if each.model == model.name]
            model.families = FamilyPrecision.by_family(
                pair for families in made for pair in families.items()
            )
        return self.manifest

    def _unexplained_failures(self) -> list[TaskRecord]:
        """The predictions that are missing though no other task on the same case has failed."""
        failed = {
            (each.case, each.model, each.target)
            for each in self._records.values()
            if each.status == "failed"
        }
        return [
            record
            for each, record in self._failed_predictions.items()
            if each not in self._predictions and each not in failed
        ]

    def _place(self, record: MapRecord) -> int:
        return self._order[record.key]


def _precision_of(model: ModelRecord, maps: Sequence[MapRecord]) -> str:
    """The precisions in which the passes for the maps of a model ran."""
    stated = [record.precision for record in maps if record.model == model.name]
    ran = (name for text in stated for name in text.split(" and ") if name)
    return " and ".join(dict.fromkeys(ran))


def new_manifest(checked: CheckedStudy, private: Redactor) -> Manifest:
    """The manifest of a run that has done nothing yet, without private words in its warnings."""
    records, models = checked.records.values(), checked.models.values()
    for record in records:
        record.warnings = [private(text) for text in record.warnings]
    return Manifest(
        software=software(),
        device=", ".join(sorted({device_name(loaded.model) for loaded in models})),
        seed=checked.study.execution.seed,
        study_sha256="",
        cases=list(records),
        models=[
            ModelRecord(
                **loaded.facts.model_dump(exclude={"precision"}),
                labels=loaded.config.labels,
                explained=not loaded.config.only_compared,
                definition=loaded.definition,
                fingerprint=loaded.fingerprint,
                probe=loaded.probe,
            )
            for loaded in models
        ],
    )
