"""``synthesize``: images that drive units of a network, by any methods."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import voxplain.synthesis.methods  # noqa: F401  # fills the registry
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError, ModelError, VoxplainWarning
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.synthesis.image_statistics import ImageStatistics, measure
from voxplain.synthesis.methods.base import SynthesisMethod, Synthesized, parse_synthesis
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.outputs import Asked, parse_objective
from voxplain.synthesis.optimizer import Progress
from voxplain.synthesis.result import Synthesis
from voxplain.synthesis.workbench import Workbench

AnySynthesis = str | Mapping[str, Any] | SynthesisMethod
Images = Image | ImageStatistics | Cohort | Sequence[Image]
"""One image, statistics of many, or cases."""


def synthesize(
    model: Model | nn.Module,
    images: Images,
    methods: AnySynthesis | Sequence[AnySynthesis],
    units: Asked | Sequence[Asked],
    *,
    statistics: ImageStatistics | None = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Synthesis]:
    """Images that drive units, classes or layers of a network.

    Args:
        model: A network, or a :class:`Model` with head, windows and precision; left as it was.
        images: The image of a patient, for methods that start from one; or cases or their
            statistics (:func:`measure`), for methods that start from noise. Range, spectrum and
            correlation of modalities of what is synthesized are read from them.
        methods: Names, mappings with parameters, or method objects.
        units: Class numbers, ``layer:channel``, ``layer:channel@center``, layers, mappings with
            ``kind``, or objectives; see :func:`parse_objective`.
        statistics: Of many images, beside the image of a patient.
        seed: Of all random draws.
        memory: Bytes for saved activations; None for a default of the device.
        progress: Called with steps done and planned.

    Returns:
        By the key of the method, or ``key@unit`` for several units. A unit that nothing drives is
        left out with a warning.

    Raises:
        VoxplainError: In one sentence, if anything does not fit, or if no unit can be driven.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
        >>> image = Image.from_array(torch.rand(1, 16, 16))
        >>> method = {"name": "feature_visualization", "steps": 4}
        >>> found = synthesize(network, image, method, "1:0")
        >>> found["feature_visualization"].images.shape
        torch.Size([1, 1, 16, 16])
    """
    asked = [parse_objective(unit) for unit in _several_units(units)]
    if not asked:
        raise ConfigError("no unit is asked for; name a class, a layer or layer:channel")
    parsed = _methods(methods)
    studied = Model.of(model).for_task(seed)
    bench = _workbench(studied, images, statistics, seed, memory, progress)
    found: dict[str, Synthesis] = {}
    for method in parsed:
        started = time.perf_counter()
        parts = method.run(bench, asked)
        seconds = time.perf_counter() - started
        for part in _driven(parts):
            key = method.key if len(asked) == 1 else f"{method.key}@{part.objective.slug}"
            found[_free(key, found)] = _result(bench, method, part, seconds)
    return found


def _several_units(units: Asked | Sequence[Asked]) -> Sequence[Asked]:
    if isinstance(units, (int, str, Mapping, Objective)):
        return [units]
    return units


def _methods(methods: AnySynthesis | Sequence[AnySynthesis]) -> list[SynthesisMethod]:
    if isinstance(methods, (str, Mapping, SynthesisMethod)):
        return [parse_synthesis(methods)]
    if not methods:
        raise ConfigError("no method of synthesis is asked for")
    return [parse_synthesis(spec, f"methods[{index}]") for index, spec in enumerate(methods)]


def _free(key: str, taken: Mapping[str, Synthesis]) -> str:
    """The key, numbered where the same method and unit occur twice."""
    number = 1
    name = key
    while name in taken:
        number += 1
        name = f"{key}-{number}"
    return name


def _workbench(
    model: Model,
    images: Images,
    statistics: ImageStatistics | None,
    seed: int,
    memory: int | None,
    progress: Progress | None,
) -> Workbench:
    if isinstance(images, ImageStatistics):
        return Workbench(model, images, None, None, seed, memory, progress)
    if isinstance(images, Image):
        found = statistics or measure([images])
        return Workbench(model, found, images, None, seed, memory, progress)
    cohort = images if isinstance(images, Cohort) else _cohort(images)
    return Workbench(model, statistics or measure(cohort), None, cohort, seed, memory, progress)


def _cohort(images: Sequence[Image]) -> Cohort:
    cases = [CohortCase(f"image {n}", f"image {n}", image) for n, image in enumerate(images)]
    return Cohort.of(cases)


def _driven(parts: Sequence[Synthesized]) -> list[Synthesized]:
    """Without units that nothing drives.

    Raises:
        ModelError: If there is none else.
    """
    dead = [part for part in parts if part.drive.is_dead]
    if not dead:
        return list(parts)
    names = ", ".join(repr(part.objective.slug) for part in dead)
    are = "is dead: its value" if len(dead) == 1 else "are dead: their values"
    sentence = f"{names} {are} did not change in any step, so nothing drives it from here"
    if len(dead) == len(parts):
        raise ModelError(f"{sentence}; choose another unit, or another start by its seed")
    warnings.warn(f"{sentence}; left out", VoxplainWarning, stacklevel=4)
    return [part for part in parts if not part.drive.is_dead]


def _result(
    bench: Workbench, method: SynthesisMethod, part: Synthesized, seconds: float
) -> Synthesis:
    drive = part.drive
    remarks = list(bench.model.remarks)
    if bench.statistics.images == 1:
        remarks.append(
            "range, spectrum and correlation of modalities are those of one image; statistics of "
            "several would be more typical"
        )
    images = drive.images.detach().float().cpu()
    return Synthesis(
        images=images,
        grid=part.grid,
        channels=bench.statistics.channels,
        method=method,
        objective=part.objective,
        model=bench.model.facts,
        statistics=bench.statistics,
        seed=bench.seed,
        history=drive.history,
        scores=tuple(drive.scores.tolist()),
        start_scores=tuple(drive.first_scores.tolist()),
        peaks=tuple(drive.peaks.tolist()),
        names=part.names or tuple(f"image {number}" for number in range(len(images))),
        start=None if part.start is None else part.start.detach().float().cpu(),
        cells=part.cells,
        findings=part.findings,
        warnings=tuple(remarks),
        seconds=seconds,
        label=method.key,
    )


__all__ = ["AnySynthesis", "Images", "synthesize"]
