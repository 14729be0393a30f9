"""Everything that can be wrong with a request, found before anything is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from voxplain.attribution import Method, estimate, group
from voxplain.attribution.prediction import Prediction, predict
from voxplain.errors import InputError, ModelError, TargetError, VoxplainError
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.layers import find_layer
from voxplain.study.cases import CaseConfig
from voxplain.study.config import Study
from voxplain.study.inputs import (
    LoadedModel,
    content_sha256,
    load_model,
    naming,
    read_case,
    read_references,
    remarks,
)
from voxplain.study.manifest import CaseRecord
from voxplain.study.plan import Plan, Subject, Task
from voxplain.targets import Target

# A backward pass costs about twice a forward pass.
_PASS_PER_FORWARD = 3.0
# What networks raise for an image they cannot take.
_FROM_A_CALL = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Asked = tuple[str, str, str]
"""Id of a case, name of a model, slug of a target."""


@dataclass(frozen=True, eq=False)
class Checked:
    """A study that can run.

    Attributes:
        study: As written.
        cases: With ids and absolute paths.
        records: What the manifest says of each case, by id.
        models: With weights, by name.
        references: Other images that methods compare with.
        reference_sha256: Their hashes.
        subjects: What is explained, in the order of the run.
        plan: The tasks.
        predictions: Those that were made on the way.
    """

    study: Study
    cases: Mapping[str, CaseConfig]
    records: Mapping[str, CaseRecord]
    models: Mapping[str, LoadedModel]
    references: Sequence[Image]
    reference_sha256: Sequence[str]
    subjects: Sequence[Subject]
    plan: Plan
    predictions: Mapping[Asked, Prediction]


def check_study(study: Study, *, trust: bool = False) -> Checked:
    """Reads every image, loads every network, asks each once, and plans the tasks.

    A target that fits no case is an error; one that fits some leaves the others to the run, where
    they fail by themselves.

    Args:
        study: What is asked for.
        trust: Whether files that run code may be opened.

    Raises:
        VoxplainError: With the place in front of the sentence.
    """
    cases = {str(case.id): case for case in study.expanded_cases()}
    models = {
        config.name: load_model(config, study.base, study.execution.precision, trust)
        for config in study.models
    }
    for loaded in models.values():
        _check_layers(study.methods, loaded)
    references = read_references(study, cases)
    hashes = [content_sha256(image) for image in references]
    survey = _Survey(study, models, hashes)
    for name, case in cases.items():
        survey.visit(name, case)
    survey.finish()
    return Checked(
        study=study,
        cases=cases,
        records=survey.records,
        models=models,
        references=references,
        reference_sha256=hashes,
        subjects=survey.subjects,
        plan=Plan(tuple(survey.tasks), survey.seconds_per_pass),
        predictions=survey.predictions,
    )


@dataclass(eq=False)
class _Survey:
    """One walk over the cases; one image is in memory at a time."""

    study: Study
    models: Mapping[str, LoadedModel]
    reference_hashes: Sequence[str]
    records: dict[str, CaseRecord] = field(default_factory=dict)
    subjects: list[Subject] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    predictions: dict[Asked, Prediction] = field(default_factory=dict)
    seconds_per_pass: dict[tuple[str, str], float] = field(default_factory=dict)
    _errors: dict[tuple[str, str], VoxplainError] = field(default_factory=dict)
    _bound: set[tuple[str, str]] = field(default_factory=set)
    _channels: dict[str, tuple[int, str]] = field(default_factory=dict)
    _per_voxel: dict[str, float] = field(default_factory=dict)

    def visit(self, name: str, case: CaseConfig) -> None:
        """Reads a case and asks every network about it."""
        found: list[str] = []
        with remarks(found):
            image = read_case(case)
            if case.reference is not None:
                with naming(f"case {name}, reference"):
                    read_mask(case.reference, image.source_grid)
            for loaded in self.models.values():
                self._ask(name, image, loaded)
        self.records[name] = _record(name, case, image, found)

    def finish(self) -> None:
        """Raises the first error of a target that fits no case."""
        for asked, error in self._errors.items():
            if asked not in self._bound:
                raise error

    def _ask(self, case: str, image: Image, loaded: LoadedModel) -> None:
        with naming(f"case {case}"):
            prepared = loaded.prepare(image)
            self._check_channels(case, prepared, loaded)
        for target in self.study.asked:
            self._bind(case, prepared, loaded, target)
        voxels = prepared.data[0].numel()
        self.seconds_per_pass[case, loaded.config.name] = (
            self._per_voxel.get(loaded.config.name, 0.0) * voxels * _PASS_PER_FORWARD
        )
        self._plan(case, image, prepared, loaded)

    def _bind(self, case: str, image: Image, loaded: LoadedModel, target: Target) -> None:
        """Asks until the target has fitted once; later cases are asked when they run."""
        asked = (loaded.config.name, target.slug)
        if asked in self._bound:
            return
        start = time.perf_counter()
        try:
            with naming(f"case {case}, model {loaded.config.name}, target {target}"):
                self.predictions[(case, *asked)] = ask(loaded, image, target)
        except TargetError as error:
            self._errors.setdefault(asked, error)
            return
        self._bound.add(asked)
        self._per_voxel[asked[0]] = (time.perf_counter() - start) / image.data[0].numel()

    def _check_channels(self, case: str, image: Image, loaded: LoadedModel) -> None:
        channels = len(image.data)
        expected, first = self._channels.setdefault(loaded.config.name, (channels, case))
        if channels != expected:
            raise InputError(f"{channels} channels, but case {first} has {expected}")

    def _plan(self, case: str, image: Image, prepared: Image, loaded: LoadedModel) -> None:
        facts = {
            "image": content_sha256(image),
            "preprocess": [step.model_dump(mode="json") for step in loaded.config.preprocess],
            "model": loaded.facts.model_dump(mode="json", exclude={"name"}),
            "references": self.reference_hashes,
        }
        for target in self.study.asked:
            subject = Subject(
                case, loaded.config.name, target, facts, seed=self.study.execution.seed
            )
            self.subjects.append(subject)
            for methods in group(self.study.methods, prepared, loaded.model):
                streams = estimate(methods, prepared, loaded.model)
                passes = sum(stream.passes for stream in streams)
                words = [stream.description for stream in streams]
                self.tasks.append(Task.of(subject, methods, passes, words))


def ask(loaded: LoadedModel, image: Image, target: Target) -> Prediction:
    """What a network says of an image, with its failures in words.

    Args:
        loaded: The network.
        image: As the network wants to see it.
        target: What is asked.

    Raises:
        ModelError: If the network cannot take the image.
        TargetError: If the target does not fit the prediction.
    """
    try:
        return predict(loaded.model, image, target)
    except (TargetError, InputError):
        raise
    except (
        VoxplainError,
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AssertionError,
    ) as error:
        known = _misfit(loaded.model.network, image)
        if known is None and isinstance(error, VoxplainError):
            raise
        raise ModelError(known or _refusal(image, error)) from error


def _misfit(network: nn.Module, image: Image) -> str | None:
    """How the first convolution disagrees with the image, which is why a call fails."""
    first = next((part for part in network.modules() if isinstance(part, _CONVOLUTIONS)), None)
    if first is None:
        return None
    rank, channels = first.weight.ndim - 2, len(image.data)
    if rank != image.rank:
        shape = "x".join(map(str, image.grid.shape))
        return f"the network is {rank}-D and the image is {image.rank}-D ({shape})"
    if first.in_channels != channels:
        names = ", ".join(image.channels)
        return (
            f"the network takes {first.in_channels} channels and the image has {channels} ({names})"
        )
    return None


def _refusal(image: Image, error: Exception) -> str:
    shape = "x".join(map(str, image.grid.shape))
    first_line = next(iter(str(error).strip().splitlines()), "")[:160]
    return (
        f"the network cannot take this image ({len(image.data)} channels, {shape}); a "
        f"preprocessing step such as pad_to_multiple may be missing ({type(error).__name__}: "
        f"{first_line})"
    )


def _check_layers(methods: Sequence[Method], loaded: LoadedModel) -> None:
    for method in methods:
        for path in named_layers(method):
            with naming(f"model {loaded.config.name}, method {method.key}"):
                find_layer(loaded.model.network, path)


def named_layers(method: Method) -> Iterator[str]:
    """The layers that the parameters of a method name."""
    for field_name in ("layer", "layers"):
        value = getattr(method, field_name, None)
        if isinstance(value, str) and value != "all":
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (path for path in value if isinstance(path, str))


def _record(name: str, case: CaseConfig, image: Image, found: list[str]) -> CaseRecord:
    grid = image.source_grid
    return CaseRecord(
        id=name,
        image_sha256=content_sha256(image),
        image=f"images/{name}_image.nii.gz",
        reference=f"images/{name}_ref.nii.gz" if case.reference else None,
        shape=grid.shape,
        spacing=grid.spacing,
        unit=grid.unit,
        orientation="".join(grid.axis_codes),
        channels=image.channels,
        warnings=found,
    )
