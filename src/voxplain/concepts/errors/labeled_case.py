"""One case beside its reference: where the network is wrong, and how far a change alters this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.concepts.errors.settings import ErrorKind
from voxplain.engine.baselines import foreground
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import Replacement
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import InputError, TargetError
from voxplain.models.model import Model
from voxplain.targets import Region, UnperturbedOutput
from voxplain.targets.base import check_label
from voxplain.targets.components import component, component_sizes
from voxplain.targets.field import Activation, apply_link, predicted_mask
from voxplain.targets.given_masks import mask_on_output
from voxplain.targets.scores import volume_per_voxel


@dataclass(frozen=True)
class AskedClass:
    """The class whose errors are asked about.

    Attributes:
        label: Of the output.
        value: Its label in the reference; every non-zero label if None.
        ignore: The label of the reference whose voxels are no errors.
        activation: What makes probabilities of the output.
        threshold: Probability above which the class is predicted under sigmoid.
    """

    label: int
    value: int | None = None
    ignore: int | None = None
    activation: Activation = "auto"
    threshold: float = 0.5

    def over(self, mask: Tensor) -> Region:
        """The sum of the log-odds of the class over a mask of the output, as a target."""
        return Region(
            label=self.label,
            mask=mask,
            link="log_odds",
            activation=self.activation,
            threshold=self.threshold,
        )


@dataclass(frozen=True, eq=False)
class ErrorComponent:
    """A connected false positive or false negative of one case.

    Attributes:
        case: The id of the case.
        patient: Of the case.
        error: ``fp`` or ``fn``.
        number: Its rank by size among those of the case, from 1.
        mask: ``(*cells)`` bool on the output.
        volume: In ``unit``.
        unit: mL, cm² in 2-D, or voxels.
    """

    case: str
    patient: str
    error: ErrorKind
    number: int
    mask: Tensor
    volume: float
    unit: str

    @property
    def id(self) -> str:
        """``case/fp1``."""
        return f"{self.case}/{self.error}{self.number}"

    @property
    def positions(self) -> int:
        """How many cells of the output it has."""
        return int(self.mask.sum())


@dataclass(frozen=True, eq=False)
class Outcome:
    """A prediction of the class.

    Attributes:
        margin: Log-odds of the class, ``(*cells)`` float64.
        predicted: Where it is predicted, ``(*cells)`` bool.
    """

    margin: Tensor
    predicted: Tensor

    def score(self, error: ErrorComponent) -> float:
        """The mean log-odds toward the error over its component."""
        mean = float(self.margin[error.mask].mean())
        return mean if error.error == "fp" else -mean

    def remaining(self, error: ErrorComponent) -> int:
        """How many cells of the error are still wrong."""
        still = self.predicted if error.error == "fp" else ~self.predicted
        return int(still[error.mask].sum())


class LabeledCase:
    """A case, the activations of some layers for it, and what is true of it.

    Args:
        model: The network.
        case: With labels.
        asked: The class whose errors are asked about.
        taps: Layers whose activations are kept.
        seed: Of a random network.

    Raises:
        InputError: If the case has no labels.
        TargetError: If the output has no spatial axes or not this class.
    """

    def __init__(
        self,
        model: Model,
        case: CohortCase,
        asked: AskedClass,
        taps: Sequence[Tap] = (),
        seed: int = 0,
    ) -> None:
        if case.labels is None:
            raise InputError(f"case {case.id!r} has no reference labels, so it has no known errors")
        self.case, self.asked, self.labels = case, asked, case.labels
        self.context = Context.open(model, case.image, seed)
        self.seen: UnperturbedOutput = self.context.look()
        if not self.seen.is_dense:
            raise TargetError("components of errors need a dense output, and this network has none")
        check_label(self.seen, asked.label)
        self._observed = observe(self.context, taps)
        self.truth = mask_on_output(case.labels, asked.value, self.seen, asked.ignore)[0]
        self.per_cell, self.unit = volume_per_voxel(self.seen)

    @property
    def activations(self) -> Mapping[Tap, Tensor]:
        """Of the kept layers, for the unchanged case."""
        return self._observed.values

    @cached_property
    def clean(self) -> Outcome:
        """The prediction for the unchanged case."""
        return self.outcome(self._observed.output)

    @cached_property
    def foreground(self) -> Tensor:
        """Where any channel of the image is not constant background, ``(*spatial)`` bool."""
        return torch.stack([foreground(each) for each in self.context.inputs[0]]).any(dim=0)

    @cached_property
    def elsewhere(self) -> Tensor:
        """Cells of the foreground without the class, true or predicted, ``(*cells)`` bool."""
        outside = ~(self.truth | self.clean.predicted)
        return self.on_output(self.foreground).to(outside.device) & outside & self._known

    def on_output(self, mask: Tensor) -> Tensor:
        """A mask of the image on the cells of the output."""
        place = self.seen.known_place("a mask on the grid of the image")
        return place.on_output(mask)

    def outcome(self, output: Tensor) -> Outcome:
        """The prediction behind an output ``(1, K, *cells)``."""
        asked, activation = self.asked, self.seen.activation(self.asked.activation)
        odds = apply_link(output.double(), "log_odds", activation)
        binary = output.shape[1] == 1
        margin = odds[0, 0 if binary else asked.label]
        if binary and asked.label == 0:
            margin = -margin
        predicted = predicted_mask(output, asked.label, activation, asked.threshold)[0]
        return Outcome(margin, predicted)

    def with_units(self, replacements: Sequence[Replacement]) -> Outcome:
        """The prediction with other values of some units."""
        return self.outcome(observe(self.context, (), replacements).output)

    def with_image(self, image: Tensor) -> Outcome:
        """The prediction for another image ``(C, *spatial)`` on the same grid."""
        other = Context(self.context.model, image[None], self.context.spacing)
        return self.outcome(observe(other).output)

    def errors(self, kind: ErrorKind, outcome: Outcome | None = None) -> Tensor:
        """Where the network is wrong in this way, ``(*cells)`` bool."""
        predicted = (outcome or self.clean).predicted
        wrong = predicted & ~self.truth if kind == "fp" else self.truth & ~predicted
        return wrong & self._known

    @cached_property
    def _known(self) -> Tensor:
        if self.asked.ignore is None:
            return torch.ones_like(self.truth)
        return self.on_output(self.labels != self.asked.ignore).to(self.truth.device)

    def components(self, kinds: Sequence[ErrorKind], most: int) -> list[ErrorComponent]:
        """The largest components of the errors of each kind."""
        return [each for kind in kinds for each in self._components(kind, most)]

    def _components(self, kind: ErrorKind, most: int) -> list[ErrorComponent]:
        wrong = self.errors(kind)
        sizes = component_sizes(wrong)[:most]
        masks = [component(wrong, number) for number in range(1, len(sizes) + 1)]
        return [
            ErrorComponent(
                case=self.case.id,
                patient=self.case.patient,
                error=kind,
                number=number,
                mask=mask,
                volume=int(mask.sum()) * self.per_cell,
                unit=self.unit,
            )
            for number, mask in enumerate(masks, start=1)
        ]

    def dice(self, outcome: Outcome) -> float:
        """Dice of the class; NaN where it is neither there nor predicted."""
        predicted = outcome.predicted & self._known
        size = int(predicted.sum()) + int(self.truth.sum())
        return 2 * int((predicted & self.truth).sum()) / size if size else float("nan")

    def volume(self, kind: ErrorKind, outcome: Outcome) -> float:
        """The volume of all errors of one kind."""
        return int(self.errors(kind, outcome).sum()) * self.per_cell
