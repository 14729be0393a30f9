"""The tasks that are left, and which of them a worker takes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from voxplain.study.execution.specs.evaluation import EvaluationSpec
from voxplain.study.execution.specs.explanation import ExplanationSpec
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.study.planning.tasks import CombinationId, TaskId


@dataclass(eq=False)
class _Group:
    """The tasks of one combination that nobody has taken yet.

    Attributes:
        ready: Those that can start, in the order in which they should.
        waiting: Those that need results of others.
        results: What these need, as far as it is there.
        cost: What is left of it.
    """

    ready: deque[tuple[TaskSpec, float]] = field(default_factory=deque)
    waiting: list[tuple[TaskSpec, float]] = field(default_factory=list)
    results: dict[TaskId, TaskResult] = field(default_factory=dict)
    cost: float = 0.0


class TaskQueue:
    """Gives out every task once, and a task after those it needs.

    The combination with the most left to do comes first, so that what does not fit into memory
    shows early and no worker is left alone with a long one at the end. A worker stays with its
    combination as long as it can, since it has the image and the network in memory; then it takes a
    combination that nobody works at, and at last helps where the most is left.

    Args:
        specs: In the order of the plan.
        costs: What each of them costs, in any unit.
    """

    def __init__(self, specs: Iterable[TaskSpec], costs: Iterable[float]) -> None:
        self._groups: dict[CombinationId, _Group] = {}
        self._at_work: dict[Hashable, CombinationId] = {}
        self._in_hand: dict[TaskId, CombinationId] = {}
        for spec, cost in zip(specs, costs, strict=True):
            self._add(spec, cost)
        for group in self._groups.values():
            group.ready = deque(sorted(group.ready, key=_place))
        self._untouched = deque(
            sorted(self._groups, key=lambda each: self._groups[each].cost, reverse=True)
        )
        self._size = sum(len(each.ready) + len(each.waiting) for each in self._groups.values())

    def __len__(self) -> int:
        """How many tasks nobody has taken yet."""
        return self._size

    def take(self, worker: Hashable = None) -> TaskSpec | None:
        """The next task for a worker; None if none can start now.

        Args:
            worker: Who asks; a task of the same combination as its last one is preferred.
        """
        chosen = self._choose(worker)
        if chosen is None:
            return None
        group = self._groups[chosen]
        spec, cost = group.ready.popleft()
        group.cost -= cost
        self._size -= 1
        self._at_work[worker] = self._in_hand[spec.id] = chosen
        return spec.with_results(group.results)

    def finish(self, result: TaskResult) -> None:
        """Notes that a task is done, so that those which need it can start."""
        combination = self._in_hand.pop(result.id)
        group = self._groups[combination]
        group.results[result.id] = result
        still: list[tuple[TaskSpec, float]] = []
        for spec, cost in group.waiting:
            can_start = group.results.keys() >= {*spec.after}
            (group.ready if can_start else still).append((spec, cost))
        group.waiting = still
        if not group.ready and not group.waiting and combination not in self._in_hand.values():
            del self._groups[combination]

    def put_back(self, spec: TaskSpec) -> None:
        """Takes back a task that was not done, first of its combination."""
        combination = self._in_hand.pop(spec.id)
        self._groups[combination].ready.appendleft((spec, 0.0))
        self._size += 1

    def _add(self, spec: TaskSpec, cost: float) -> None:
        group = self._groups.setdefault(spec.place, _Group())
        group.cost += cost
        if spec.after:
            group.waiting.append((spec, cost))
        else:
            group.ready.append((spec, cost))

    def _choose(self, worker: Hashable) -> CombinationId | None:
        own = self._at_work.get(worker)
        if own in self._groups and self._groups[own].ready:
            return own
        while self._untouched:
            combination = self._untouched.popleft()
            if combination in self._groups and self._groups[combination].ready:
                return combination
        ready = [combination for combination, group in self._groups.items() if group.ready]
        return max(ready, key=lambda each: self._groups[each].cost, default=None)


def _place(entry: tuple[TaskSpec, float]) -> tuple[int, float]:
    """Predictions first, then explanations from the largest to the smallest, then scores."""
    spec, cost = entry
    rank = 1 if isinstance(spec, ExplanationSpec) else 2 if isinstance(spec, EvaluationSpec) else 0
    return (rank, -cost)
