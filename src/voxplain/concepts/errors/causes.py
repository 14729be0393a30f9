"""What may carry an error: units, modalities and structures, each replaced in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxplain.concepts.concept import Concept
from voxplain.concepts.errors.labeled_case import LabeledCase, Outcome
from voxplain.concepts.errors.placements import Placements
from voxplain.concepts.errors.settings import Filling
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.masks.imputation import impute
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.records.error_causes import CauseKind, NullKind


@dataclass(frozen=True, eq=False)
class ReplacingCase:
    """Another case whose values replace those of a case.

    Attributes:
        image: ``(C, *spatial)``.
        activations: Of the kept layers.
    """

    image: Tensor
    activations: Mapping[Tap, Tensor]


@dataclass(frozen=True, eq=False)
class Substitutes:
    """Where replacing values come from.

    Attributes:
        means: The mean of every channel of the kept layers over the cases, ``(K,)``.
        donor: Another case for each; None where means replace.
    """

    means: Mapping[Tap, Tensor]
    donor: Callable[[LabeledCase], ReplacingCase] | None = None

    def of_layer(self, case: LabeledCase, tap: Tap) -> Tensor:
        """Replacing values of a layer, of the shape of its activation.

        Raises:
            ConfigError: If the windows of the other case are not those of this one.
        """
        own = case.activations[tap]
        if self.donor is None:
            return self.means[tap].to(own).view(-1, *(1,) * (own.ndim - 1)).expand_as(own)
        given = self.donor(case).activations[tap].to(own)
        if case.context.layout is not None and given.shape != own.shape:
            raise ConfigError(
                f"case {case.case.id!r} and the case that replaces it have different windows; "
                "choose replacement: mean"
            )
        return given

    def of_channel(self, case: LabeledCase, channel: int) -> Tensor:
        """Replacing values of a modality, ``(*spatial)``: its mean inside, or another case.

        Raises:
            ConfigError: If the other case has another shape.
        """
        own = case.context.inputs[0, channel]
        if self.donor is None:
            inside = case.foreground
            return torch.where(inside, own[inside].mean(), own)
        return same_grid(self.donor(case).image, case)[channel].to(own)


def same_grid(image: Tensor, case: LabeledCase) -> Tensor:
    """The image of another case.

    Raises:
        ConfigError: If it has another shape.
    """
    if image.shape != case.context.inputs[0].shape:
        raise ConfigError(
            f"case {case.case.id!r} and the case that replaces its image have different shapes; "
            "choose replacement: mean and fill: surround or blur"
        )
    return image


@dataclass(frozen=True, eq=False)
class Replaceable(ABC):
    """One thing that can be replaced.

    Attributes:
        name: In words.
    """

    kind: ClassVar[CauseKind]
    null: ClassVar[NullKind] = "places"

    name: str

    @property
    def layer(self) -> str:
        """The path of the layer of units, else empty."""
        return ""

    @property
    def units(self) -> list[int]:
        """Their numbers, else none."""
        return []

    @abstractmethod
    def outcome(self, case: LabeledCase) -> Outcome | None:
        """The prediction with it replaced; None where a case does not have it."""

    def random(
        self, case: LabeledCase, count: int, source: torch.Generator
    ) -> Iterator[Replaceable]:
        """The same with random sets or regions of the same size."""
        return iter(())


@dataclass(frozen=True, eq=False)
class Units(Replaceable):
    """Units of a layer.

    Attributes:
        tap: The layer.
        channels: Their numbers.
        substitutes: What replaces them.
        factor: What is left of their deviation from it; 0 replaces them, 1 changes nothing.
    """

    kind: ClassVar[CauseKind] = "units"
    null: ClassVar[NullKind] = "sets"

    tap: Tap
    channels: tuple[int, ...]
    substitutes: Substitutes
    factor: float = 0.0

    @property
    def layer(self) -> str:
        """The path of the layer."""
        return self.tap.path

    @property
    def units(self) -> list[int]:
        """The numbers of the units."""
        return list(self.channels)

    def outcome(self, case: LabeledCase) -> Outcome:
        """The prediction with the units replaced, or closer to what replaces them."""
        values = self.substitutes.of_layer(case, self.tap)
        if self.factor:
            own = case.activations[self.tap]
            values = values + self.factor * (own - values)
        return case.with_units([Replacement(self.tap, UnitSet(self.channels), values)])

    def random(self, case: LabeledCase, count: int, source: torch.Generator) -> Iterator[Units]:
        """Random sets of other units, as many as these; each set once."""
        total, own, seen = (
            len(self.substitutes.means[self.tap]),
            {*self.channels},
            set[tuple[int, ...]](),
        )
        for _ in range(4 * count):
            drawn = torch.randperm(total, generator=source)[: len(self.channels)].tolist()
            chosen = tuple(sorted(drawn))
            if {*chosen} == own or chosen in seen:
                continue
            seen.add(chosen)
            yield replace(self, channels=chosen)
            if len(seen) == count:
                return


@dataclass(frozen=True, eq=False)
class SingleUnit(Units):
    """One unit of a layer; its null is what it does elsewhere in the image."""

    kind: ClassVar[CauseKind] = "unit"
    null: ClassVar[NullKind] = "places"


@dataclass(frozen=True, eq=False)
class Modality(Replaceable):
    """A channel of the image.

    Attributes:
        channel: Its number.
        substitutes: What replaces it.
    """

    kind: ClassVar[CauseKind] = "modality"

    channel: int
    substitutes: Substitutes

    def outcome(self, case: LabeledCase) -> Outcome:
        """The prediction with another channel."""
        image = case.context.inputs[0].clone()
        image[self.channel] = self.substitutes.of_channel(case, self.channel)
        return case.with_image(image)


@dataclass(frozen=True, eq=False)
class Structure(Replaceable):
    """A concept that is a part of the image.

    Attributes:
        concept: Its mask.
        fill: What replaces it.
        substitutes: For other cases.
        mask: The region itself, ``(*spatial)`` bool, where it is not that of the concept.
    """

    kind: ClassVar[CauseKind] = "structure"
    null: ClassVar[NullKind] = "regions"

    concept: Concept
    fill: Filling
    substitutes: Substitutes
    mask: Tensor | None = None

    def region(self, case: LabeledCase) -> Tensor | None:
        """Where it is, ``(*spatial)`` bool; None where a case does not have it."""
        mask = self.concept.of(case.case) if self.mask is None else self.mask
        if mask is None or not bool(mask.any()) or bool(mask.all()):
            return None
        return mask.bool().to(case.context.inputs.device)

    def outcome(self, case: LabeledCase) -> Outcome | None:
        """The prediction without the structure."""
        mask = self.region(case)
        if mask is None:
            return None
        image = case.context.inputs[0]
        return case.with_image(torch.where(mask, self._filling(case, image, mask), image))

    def _filling(self, case: LabeledCase, image: Tensor, mask: Tensor) -> Tensor:
        if self.fill == "surround":
            return impute(image, mask.expand_as(image), case.context.spacing)
        if self.fill == "case":
            if self.substitutes.donor is None:
                raise ConfigError("fill: case takes another case; choose replacement: resample")
            return same_grid(self.substitutes.donor(case).image, case).to(image)
        return _blurred(image, mask)

    def random(self, case: LabeledCase, count: int, source: torch.Generator) -> Iterator[Structure]:
        """Regions of the same shape elsewhere in the foreground."""
        mask = self.region(case)
        if mask is None:
            return iter(())
        moved = Placements(mask, case.foreground).drawn(count, source)
        return (replace(self, mask=each) for each in moved)


def _blurred(image: Tensor, mask: Tensor) -> Tensor:
    """The image under a Gaussian blur with a sigma of the extent of a region along each axis."""
    (box,) = ndimage.find_objects(mask.cpu().numpy().astype(np.uint8))
    sides = zip((side.stop - side.start for side in box), image.shape[1:], strict=True)
    sigma = [0.0, *(float(extent) if side > 1 else 0.0 for extent, side in sides)]
    blurred = ndimage.gaussian_filter(image.double().cpu().numpy(), sigma, mode="nearest")
    return torch.from_numpy(blurred).to(image)


def modalities(channels: Sequence[str], substitutes: Substitutes) -> list[Modality]:
    """Every channel of the images, if there are several."""
    if len(channels) < 2:
        return []
    return [
        Modality(f"modality {name}", number, substitutes) for number, name in enumerate(channels)
    ]


def single_units(tap: Tap, channels: Sequence[int], substitutes: Substitutes) -> list[SingleUnit]:
    """Some units of a layer, each alone."""
    return [
        SingleUnit(f"unit {number} of {tap.path}", tap, (number,), substitutes)
        for number in channels
    ]
