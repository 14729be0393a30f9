"""The largest errors of a cohort, and what replaces units and modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxplain.concepts.errors.causes import ReplacingCase, Substitutes
from voxplain.concepts.errors.labeled_case import AskedClass, ErrorComponent, LabeledCase
from voxplain.concepts.errors.screen import estimated_drops, strongest
from voxplain.concepts.errors.settings import ErrorSettings, UnitSets
from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.models.model import Model


@dataclass(eq=False)
class CohortReader:
    """Opens cases with the layers that are of interest.

    Attributes:
        model: The network.
        cohort: The cases.
        asked: The class.
        layers: Whose single units are replaced.
        taps: These and the layers of sets.
        seed: Of random networks, and of which case replaces which.
    """

    model: Model
    cohort: Cohort
    asked: AskedClass
    layers: tuple[Tap, ...]
    taps: tuple[Tap, ...]
    seed: int
    _kept: dict[str, ReplacingCase] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Model,
        cohort: Cohort,
        asked: AskedClass,
        layers: Sequence[str],
        sets: UnitSets,
        seed: int,
    ) -> CohortReader:
        """A reader for these layers; the last feature layer where none is named.

        Raises:
            ModelError: With the nearest names, if a layer does not exist.
        """
        known = Context.open(model, cohort[cohort.ids[0]].image, seed).layers
        own = known.taps(tuple(layers))
        others = [Tap(path) for path, _ in sets.values()]
        return cls(model, cohort, asked, own, tuple(dict.fromkeys([*own, *others])), seed)

    def open(self, case: str) -> LabeledCase:
        """A case beside its reference."""
        return LabeledCase(self.model, self.cohort[case], self.asked, self.taps, self.seed)

    def donor(self, case: LabeledCase) -> ReplacingCase:
        """A case of another patient, the same one in every call for a case.

        Raises:
            ConfigError: If all cases are of one patient.
        """
        own, pairs = case.case, zip(self.cohort.ids, self.cohort.patients, strict=True)
        others = [name for name, patient in pairs if patient != own.patient]
        if not others:
            raise ConfigError("there is no other patient to resample from; choose mean")
        source = generator(self.seed, own.id, "donor")
        name = others[int(torch.randint(len(others), (), generator=source))]
        if name not in self._kept:
            context = Context.open(self.model, self.cohort[name].image, self.seed)
            seen = observe(context, self.taps)
            self._kept = {name: ReplacingCase(context.inputs[0], seen.values)}
        return self._kept[name]


@dataclass(frozen=True, eq=False)
class CohortErrors:
    """The largest errors of a cohort, with what the same pass over it has measured.

    Attributes:
        errors: The largest ones, in order.
        substitutes: What replaces units and modalities.
        class_name: Of the class.
        channels: Names of the channels of the images.
        remarks: Sentences for readers.
    """

    errors: tuple[ErrorComponent, ...]
    substitutes: Substitutes
    class_name: str
    channels: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def by_case(self) -> dict[str, list[ErrorComponent]]:
        """The errors of every case that has some."""
        found: dict[str, list[ErrorComponent]] = {}
        for error in self.errors:
            found.setdefault(error.case, []).append(error)
        return found


def errors_of_cohort(reader: CohortReader, settings: ErrorSettings) -> CohortErrors:
    """The largest errors of all cases, and the mean of every channel on the way."""
    found: list[ErrorComponent] = []
    sums: dict[Tap, Tensor] = {}
    channels: tuple[str, ...] = ()
    name, count = "", len(reader.cohort)
    for case_id in reader.cohort.ids:
        case = reader.open(case_id)
        for tap, values in case.activations.items():
            mean = values.double().flatten(1).mean(dim=1) / count
            sums[tap] = sums[tap] + mean if tap in sums else mean
        found += case.components(settings.kinds, settings.per_case)
        name, channels = case.seen.class_name(reader.asked.label), case.case.image.channels
    large = [error for error in found if error.volume >= settings.least]
    large.sort(key=lambda error: -error.volume)
    donor = reader.donor if settings.replacement == "resample" else None
    return CohortErrors(
        errors=tuple(large[: settings.most]),
        substitutes=Substitutes(sums, donor),
        class_name=name,
        channels=channels,
        remarks=() if large else ("the network makes no error of this size on these cases",),
    )


def units_to_replace(
    reader: CohortReader, largest: CohortErrors, settings: ErrorSettings
) -> tuple[dict[Tap, tuple[int, ...]], tuple[str, ...]]:
    """The units of every layer that are replaced exactly, and remarks.

    In layers with more units than are asked for, those with the largest first-order estimates for
    any of the errors.
    """
    counts = {tap: len(largest.substitutes.means[tap]) for tap in reader.layers}
    chosen = {tap: tuple(range(count)) for tap, count in counts.items()}
    wide = [tap for tap, count in counts.items() if count > settings.units]
    if not wide or not largest.errors:
        return chosen, ()
    if not reader.model.differentiable:
        return chosen, ("the network has no gradients, so every unit was replaced exactly",)
    estimates: dict[Tap, list[Tensor]] = {tap: [] for tap in wide}
    for name, errors in largest.by_case.items():
        case = reader.open(name)
        for error in errors:
            drops = estimated_drops(case, error, wide, largest.substitutes)
            for tap in wide:
                estimates[tap].append(drops[tap])
    screened = {tap: strongest(estimates[tap], settings.units) for tap in wide}
    remarks = tuple(
        f"of the {counts[tap]} units of {tap.path}, the {settings.units} with the largest gradient "
        "estimates were replaced"
        for tap in wide
    )
    return chosen | screened, remarks
