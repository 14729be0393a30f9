"""The declaration of a method of synthesis, its registry, and what its methods share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from pydantic import Field
from torch import Tensor

from voxplain.declaration import Declaration
from voxplain.errors import ConfigError
from voxplain.image import Grid
from voxplain.registry import Registry
from voxplain.synthesis.extent import Extent
from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import LayerDiversity
from voxplain.synthesis.objectives.outputs import WeightedSum
from voxplain.synthesis.parametrizations import AnyParametrization, Fourier
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import AdamUpdate
from voxplain.synthesis.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Synthesized:
    """The images of one unit.

    Attributes:
        objective: What they drive.
        grid: Where they lie.
        drive: How they came about.
        start: The patient's image that they started from, ``(C, *spatial)``.
        names: One per image.
        cells: Place of every image in a grid of images; empty without one.
        findings: What else was found.
    """

    objective: Objective
    grid: Grid
    drive: Drive
    start: Tensor | None = None
    names: tuple[str, ...] = ()
    cells: tuple[tuple[int, ...], ...] = ()
    findings: dict[str, Any] = field(default_factory=dict)


class SynthesisMethod(Declaration):
    """A method of synthesis; its fields are its parameters.

    Attributes:
        formula: What is maximized.
        from_image: Whether it starts from the image of a patient.
        label: The key in results and files; the name of the method if None.
    """

    family: ClassVar[str] = "synthesis"
    formula: ClassVar[str] = ""
    from_image: ClassVar[bool] = False

    label: str | None = Field(default=None, description="key of the result; the name if absent")

    @property
    def key(self) -> str:
        """The key in results and files."""
        return self.label or self.name

    @abstractmethod
    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """The images of each unit, in order.

        Args:
            bench: The network, images of the user, and the seed.
            units: What is asked for.
        """

    def _layer_of(self, unit: Objective) -> str:
        """The layer that a unit is about, for methods of whole layers.

        Raises:
            ConfigError: If it is about the output or about several layers.
        """
        if len(unit.taps) != 1:
            raise ConfigError(f"{self.name} is about a layer, and {unit.slug!r} is about none")
        return unit.taps[0].path


class FromNoise(SynthesisMethod):
    """A method that starts from noise: one optimization, whatever is optimized.

    Attributes:
        steps: Of the optimizer.
        rate: Size of a step of Adam.
        parametrization: Which numbers are optimized.
        transforms: Random changes before every forward.
        regularization: Penalties.
        extent: How large the images are.
        images: Per unit, from different noise.
        diversity: Weight of their difference in the layer of the unit.
    """

    steps: int = Field(default=512, ge=1)
    rate: float = Field(default=0.05, gt=0)
    parametrization: AnyParametrization = Fourier()
    transforms: Transforms = Transforms()
    regularization: Regularization = Regularization()
    extent: Extent = "auto"
    images: int = Field(default=1, ge=1, description="per unit, from different noise")
    diversity: float = Field(default=0.0, ge=0, description="weight of their difference")

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """All units in one optimization."""
        surface = bench.free_surface(units, self.extent)
        jobs = [
            SynthesisJob(self._driven(unit), bench.keys(unit, self.images), unit=unit)
            for unit in units
        ]
        recipe = Recipe(
            surface=surface,
            parametrization=self.parametrization,
            transforms=self.transforms,
            regularization=self.regularization,
            update=AdamUpdate(self.rate),
            steps=self.steps,
        )
        driven = self._awake(bench, jobs, recipe, bench.drive(jobs, recipe))
        names = tuple(f"image {number}" for number in range(self.images))
        return [
            Synthesized(unit, surface.grid, found, names=names)
            for unit, found in zip(units, driven, strict=True)
        ]

    def _awake(
        self,
        bench: Workbench,
        jobs: Sequence[SynthesisJob],
        recipe: Recipe,
        driven: Sequence[Drive],
    ) -> list[Drive]:
        """Units that the noise did not reach try once more from stronger noise."""
        asleep = [number for number, found in enumerate(driven) if found.is_dead]
        if not asleep:
            return list(driven)
        louder = replace(recipe, parametrization=recipe.parametrization.louder())
        again = bench.drive([jobs[number] for number in asleep], louder)
        found = dict(zip(asleep, again, strict=True))
        return [found.get(number, first) for number, first in enumerate(driven)]

    def _driven(self, unit: Objective) -> Objective:
        """The unit, and the difference of its images where that has a weight."""
        if not self.diversity or self.images < 2:
            return unit
        apart = LayerDiversity(layer=self._layer_of(unit))
        return WeightedSum(terms=(unit, apart), weights=(1.0, self.diversity), title=unit.slug)


synthesis_methods: Registry[SynthesisMethod] = Registry(
    "method of synthesis", "voxplain.synthesis_methods"
)
"""All methods of synthesis by name."""

S = TypeVar("S", bound=SynthesisMethod)


def registered(method: type[S]) -> type[S]:
    """Registers a method of synthesis under its name."""
    synthesis_methods.add(method.title(), method)
    return method


def parse_synthesis(
    spec: str | Mapping[str, Any] | SynthesisMethod, where: str = ""
) -> SynthesisMethod:
    """A method from its name, a mapping with parameters, or a method, which is returned.

    Raises:
        ConfigError: With the nearest names or the path of the parameter.
    """
    return synthesis_methods.parse(spec, where)
