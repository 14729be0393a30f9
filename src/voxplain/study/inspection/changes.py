"""What a run would do to an earlier one in its folder: which tasks it keeps, why it does others."""

from __future__ import annotations

from collections.abc import Mapping

from voxplain.records.manifest import Manifest, PredictionRecord, TaskRecord
from voxplain.study.execution.earlier_results import EarlierResults, ScoreCache
from voxplain.study.execution.evaluator import finished_scores
from voxplain.study.execution.store import Store
from voxplain.study.planning.analysis_task import AnalysisTask
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId

_Place = tuple[str, str, str, str]


def reasons_to_run(checked: CheckedStudy, store: Store) -> dict[TaskId, str]:
    """Why each task of a study has to be done; those that an earlier run has done are left out.

    Args:
        checked: The study.
        store: Its run directory.

    Returns:
        By task, in words: ``new``, ``changed: weights``, ``changed: parameters``, ``failed: ...``.
    """
    manifest = store.earlier()
    earlier = EarlierResults(manifest, store)
    why = _Reasons(manifest)
    found: dict[TaskId, str] = {}
    maps_change: set[CombinationId] = set()
    for task in checked.plan.tasks:
        kept = {record.key for record in earlier.maps(task)}
        left = task.without(kept)
        if left.methods:
            failed = earlier.failed(task)
            found[task.id] = why.of(left, failed)
            maps_change.add(task.combination.id)
    for evaluation in checked.plan.evaluations:
        combination = evaluation.combination
        if combination.id in maps_change:
            found[evaluation.id] = "its maps are new"
            continue
        tasks = checked.plan.tasks_of(combination)
        maps = [record for task in tasks for record in earlier.maps(task)]
        cache = ScoreCache(store.folder, combination.key)
        if finished_scores(evaluation, maps, cache) is None:
            found[evaluation.id] = why.of(evaluation, earlier.failed(evaluation))
    for analysis in checked.plan.analyses:
        reason = _why_again(analysis, earlier, manifest)
        if reason is not None:
            found[analysis.id] = reason
    return found


class _Reasons:
    """Compares tasks with the records of an earlier run.

    Args:
        manifest: Of the earlier run; None if there is none.
    """

    def __init__(self, manifest: Manifest | None) -> None:
        predictions = manifest.predictions if manifest else []
        maps = manifest.maps if manifest else []
        self._predictions: dict[CombinationId, PredictionRecord] = {
            (each.case, each.model, each.target): each for each in predictions
        }
        self._maps: dict[_Place, set[str]] = {}
        for each in maps:
            place = (each.case, each.model, each.target, each.label)
            self._maps.setdefault(place, set()).add(each.key)
        self._tasks = {
            (each.case, each.model, each.target, each.kind): each
            for each in (manifest.tasks if manifest else [])
        }

    def of(self, task: Task | EvaluationTask, failed: TaskRecord | None) -> str:
        """Why a task has to be done."""
        if failed is not None:
            return f"failed: {failed.reason}"
        combination = task.combination
        before = self._predictions.get(combination.id)
        if before is None:
            return "new"
        changed = _changed(before.parts, combination)
        if changed:
            return f"changed: {', '.join(changed)}"
        if isinstance(task, EvaluationTask):
            known = (*combination.id, task.kind) in self._tasks
            return "changed: metrics, references or controls" if known else "new"
        keys = [self._maps.get((*combination.id, label), set()) for label in task.labels]
        if any(key in known for key, known in zip(task.methods, keys, strict=True)):
            return "its files are missing or damaged"
        return "changed: parameters" if any(keys) else "new"


def _why_again(
    task: AnalysisTask, earlier: EarlierResults, manifest: Manifest | None
) -> str | None:
    """Why an analysis has to be done; None if its results are there."""
    if earlier.analysis(task) is not None:
        return None
    failed = earlier.failed(task)
    if failed is not None:
        return f"failed: {failed.reason}"
    made = {record.folder: record.key for record in (manifest.analyses if manifest else [])}
    if task.folder not in made:
        return "new"
    if made[task.folder] == task.key:
        return "its files are missing or damaged"
    return "changed: parameters, concepts, cases or network"


def _changed(before: Mapping[str, str], combination: Combination) -> list[str]:
    """What a combination is made of that was otherwise before."""
    if not before:
        return ["an older version made them"]
    return [name for name, part in combination.parts.items() if before.get(name) != part]
