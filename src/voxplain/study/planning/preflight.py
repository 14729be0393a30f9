"""One walk over the cases of a study, before anything is written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from voxplain.attribution import Prediction, estimate, group
from voxplain.engine.context import Context
from voxplain.engine.method import Method
from voxplain.errors import InputError, TargetError, VoxplainError, VoxplainWarning
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.models.model import Model
from voxplain.records.atomic import sha256
from voxplain.records.manifest import CaseRecord
from voxplain.study.config.case_files import contents, for_case, label_maps, without_files
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.for_each import ForEach
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.evaluation_task import EvaluationTask, plan_evaluation
from voxplain.study.planning.expansion import (
    Expansion,
    NamedTarget,
    NothingFoundError,
    add_target,
)
from voxplain.study.planning.images import case_record, content_sha256, read_case
from voxplain.study.planning.messages import collected_warnings, errors_at
from voxplain.study.planning.network_calls import output_for_case, predict_case
from voxplain.study.planning.networks import LoadedModel
from voxplain.study.planning.pass_limit import require_affordable
from voxplain.study.planning.references import ReferenceCount
from voxplain.study.planning.tasks import Combination, CombinationId, Task
from voxplain.targets import Target, UnperturbedOutput


@dataclass(eq=False)
class Preflight:
    """Checks the cases of a study one after another; one image is in memory at a time.

    Attributes:
        study: What to do.
        cases: With ids and absolute paths.
        models: The networks, by name.
        references: Counts the images that methods compare with.
        expansion: Makes targets of what predictions hold.
        records: What the manifest says of each case so far.
        combinations: What is explained.
        tasks: Explanations.
        evaluations: Of their maps.
        predictions: Those that were made to try the targets.
        seconds: What these took for one voxel, by network.
        shapes: Of the image of each case after the preprocessing of each network.
    """

    study: StudyConfig
    cases: Mapping[str, CaseConfig]
    models: Mapping[str, LoadedModel]
    references: ReferenceCount
    expansion: Expansion
    records: dict[str, CaseRecord] = field(default_factory=dict)
    combinations: list[Combination] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    evaluations: list[EvaluationTask] = field(default_factory=list)
    predictions: dict[CombinationId, Prediction] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    shapes: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    _errors: dict[tuple[str, str], VoxplainError] = field(default_factory=dict)
    _bound: set[tuple[str, str]] = field(default_factory=set)
    _channels: dict[str, tuple[int, str]] = field(default_factory=dict)

    def visit(self, name: str, case: CaseConfig) -> None:
        """Reads a case, and plans its explanation by every network that is explained."""
        texts: list[str] = []
        with collected_warnings(texts):
            image = read_case(case)
            if case.reference is not None:
                with errors_at(f"case {name}, reference"):
                    read_mask(case.reference, image.source_grid, ignore=case.reference_ignore)
            for loaded in self.models.values():
                if not loaded.config.only_compared:
                    self._visit_network(name, image, loaded)
        self.records[name] = case_record(name, case, image, texts)

    def finish(self) -> None:
        """Raises the first error of what fits nowhere; what fits in part fails during the run.

        Raises:
            TargetError: If a target fits no case of any network.
        """
        for (model, target), error in self._errors.items():
            if not any(bound == target for _, bound in self._bound):
                raise error
            if (model, target) not in self._bound:
                warnings.warn(str(error), VoxplainWarning, stacklevel=2)

    def _visit_network(self, case: str, image: Image, loaded: LoadedModel) -> None:
        with errors_at(f"case {case}"):
            prepared = loaded.prepare(image)
            self._check_channels(case, prepared, loaded)
            self.shapes[case, loaded.config.name] = tuple(prepared.data.shape[1:])
        facts = {
            "image": content_sha256(image),
            "preprocess": [step.model_dump(mode="json") for step in loaded.config.preprocess],
            "model": loaded.facts.model_dump(mode="json", exclude={"name"}),
        }
        targets: dict[str, NamedTarget] = {}
        look = cache(partial(self._look, case, prepared, loaded))
        for declared in self.study.all_targets:
            with errors_at(f"case {case}"):
                target = for_case(declared, self.cases[case], self.study.base)
            named = without_files(declared)
            if isinstance(target, ForEach) and isinstance(named, ForEach):
                for found in self._expanded(case, loaded, target, named, facts, look):
                    add_target(targets, found, case)
            elif isinstance(target, Target) and isinstance(named, Target):
                self._try_target(case, prepared, loaded, target, named)
                add_target(targets, (target, named), case)
        self._plan(case, facts, prepared, loaded, [*targets.values()])

    def _expanded(
        self,
        case: str,
        loaded: LoadedModel,
        each: ForEach,
        named: ForEach,
        facts: Mapping[str, object],
        look: Callable[[], UnperturbedOutput],
    ) -> list[NamedTarget]:
        """The targets for what the network predicts for a case; none is a remark of the case."""
        name, place = loaded.config.name, f"case {case}, model {loaded.config.name}"
        try:
            determined = [facts, loaded.identity]
            targets = self.expansion.targets(each, named, place, determined, look)
        except NothingFoundError as error:
            nowhere = TargetError(f"model {name}, {named}: no case has any; case {case}: {error}")
            self._errors.setdefault((name, named.slug), nowhere)
            return []
        except TargetError as error:
            wrong = TargetError(f"{place}, {named}: {error}")
            self._errors.setdefault((name, named.slug), wrong)
            warnings.warn(str(wrong), VoxplainWarning, stacklevel=2)
            return []
        self._bound.add((name, named.slug))
        return targets

    def _look(self, case: str, image: Image, loaded: LoadedModel) -> UnperturbedOutput:
        """The output for a case, timed."""
        start = time.perf_counter()
        with errors_at(f"case {case}, model {loaded.config.name}"):
            output = output_for_case(loaded, image, self.study.execution.timeout)
        seconds = (time.perf_counter() - start) / image.data[0].numel()
        self.seconds.setdefault(loaded.config.name, seconds)
        return output

    def _try_target(
        self, case: str, image: Image, loaded: LoadedModel, target: Target, named: Target
    ) -> None:
        """Predicts until the target has fitted one case; the others are predicted by the run."""
        model_and_target = (loaded.config.name, named.slug)
        if model_and_target in self._bound:
            return
        try:
            with errors_at(f"case {case}, model {loaded.config.name}, target {target}"):
                limit = self.study.execution.timeout
                start = time.perf_counter()
                prediction = predict_case(loaded, image, target, limit)
                seconds = (time.perf_counter() - start) / image.data[0].numel()
        except TargetError as error:
            self._errors.setdefault(model_and_target, error)
            return
        self.predictions[(case, *model_and_target)] = prediction
        self.seconds[loaded.config.name] = seconds
        self._bound.add(model_and_target)

    def _check_channels(self, case: str, image: Image, loaded: LoadedModel) -> None:
        channels = len(image.data)
        expected, first = self._channels.setdefault(loaded.config.name, (channels, case))
        if channels != expected:
            raise InputError(f"{channels} channels, but case {first} has {expected}")

    def _plan(
        self,
        case: str,
        facts: Mapping[str, object],
        prepared: Image,
        loaded: LoadedModel,
        targets: Sequence[NamedTarget],
    ) -> None:
        facts = {**facts, "references": self.references.sha256}
        context = Context.open(loaded.model, prepared)
        declared = self._methods(case, prepared)
        with errors_at(f"model {loaded.config.name}"):
            methods = [each for method in declared for each in method.each_layer(context)]
        self.references.count(methods, str(facts["image"]), context)
        for target, named in targets:
            combination = Combination(
                case=case,
                model=loaded.config.name,
                target=target,
                named=named,
                facts={**facts, "files": contents(target)},
                seed=self.study.execution.seed,
                patient=self.cases[case].patient or "",
                network=loaded.identity,
            )
            self.combinations.append(combination)
            with errors_at(f"model {loaded.config.name}"):
                max_passes = self.study.execution.max_passes
                tasks = list(_tasks(combination, methods, prepared, loaded.model, max_passes))
                self.tasks += tasks
                self.evaluations += self._evaluation(combination, tasks, prepared, loaded)

    def _evaluation(
        self, combination: Combination, tasks: Sequence[Task], image: Image, loaded: LoadedModel
    ) -> list[EvaluationTask]:
        study, case = self.study, self.cases[combination.case]
        if not study.metrics and study.randomization is None:
            return []
        others = loaded.comparable(self.models)
        networks = [
            {
                "differs": loaded.differs(other),
                **other.facts.model_dump(mode="json"),
                **other.identity,
            }
            for other in others
        ]
        mask = [sha256(case.reference), case.reference_label] if case.reference else None
        if mask and case.reference_ignore is not None:
            mask.append(case.reference_ignore)
        truth = {} if case.truth is None else {"truth": case.truth}
        return [
            plan_evaluation(
                combination,
                tasks,
                study.metrics,
                study.randomization,
                study.execution.controls,
                {"networks": networks, "mask": mask, **truth},
                Context.open(loaded.model, image),
                study.execution.max_passes,
                [loaded.as_other_network(other) for other in others],
            )
        ]

    def _methods(self, case: str, image: Image) -> list[Method]:
        """The methods with the files of a case, once their label maps fit its image."""
        with errors_at(f"case {case}"):
            methods = [
                for_case(method, self.cases[case], self.study.base) for method in self.study.methods
            ]
        for method in methods:
            with errors_at(f"case {case}, {method.key}"):
                for labels in label_maps(method):
                    labels.divide(image.data, image.grid.spacing, image)
        return methods


def _tasks(
    combination: Combination, methods: Sequence[Method], image: Image, model: Model, max_passes: int
) -> Iterator[Task]:
    for together in group(methods, image, model):
        streams = estimate(together, image, model)
        require_affordable(together, streams, max_passes, image, model)
        yield Task.of(combination, together, streams)
