"""Cases that show what a unit does: its map and its mask over the image, beside a concept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.pictures import kept_figure
from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.dissection.units import UnitReading
from voxplain.concepts.relevance_exemplars import relevance_map
from voxplain.engine.interventions import UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.records.analysis_page import PageFigure
from voxplain.records.dissection import PairDissected, UnitDissected
from voxplain.records.relevance import RelevanceRule, UnitRelevance
from voxplain.targets import Target
from voxplain.viz.exemplar_figure import exemplar_figure, overlaid
from voxplain.viz.words import number


@dataclass(frozen=True, eq=False)
class _End:
    """The cases at one end, with the number that stands below each."""

    name: str
    words: str
    cases: Sequence[tuple[str, float]]


class ExemplarPictures:
    """Draws the cases of one unit, planes through the strongest voxel of each.

    Args:
        inputs: Of the analysis.
        unit: Whose maps are drawn.
        pair: The concept beside it, and from which activation on the unit is on.
        reading: How the units of the layer are read; its channels if None.
    """

    def __init__(
        self,
        inputs: AnalysisInputs,
        unit: UnitDissected,
        pair: PairDissected,
        reading: UnitReading | None = None,
    ) -> None:
        self._inputs, self._unit, self._pair = inputs, unit, pair
        self._reading = reading or UnitSet((unit.index,))
        self._row = 0 if reading is None else unit.index
        self._contexts = CaseContexts(inputs.model, inputs.seed)
        self._tap = Tap(unit.layer)

    def by_activation(self) -> list[PageFigure]:
        """The cases in which the unit is most active, then those in which it is least active."""
        ends = [
            _End(name, f"{name} activation", [(each.case, each.value) for each in cases])
            for name, cases in (("strongest", self._unit.top), ("weakest", self._unit.bottom))
        ]
        return self._figures(ends, "activation", "", self._activation)

    def by_relevance(
        self, found: UnitRelevance, target: Target, rule: RelevanceRule, about: str
    ) -> list[PageFigure]:
        """The cases in which a score draws on the unit most, then those in which it does least.

        Args:
            found: Of the unit.
            target: The score.
            rule: How relevance was propagated.
            about: The target in words.
        """
        is_negative = any(each.value < 0 for each in found.bottom)
        least = "most negative relevance" if is_negative else "least relevance"
        ends = [
            _End(name, words, [(each.case, each.value) for each in cases])
            for name, words, cases in (
                ("most-relevance", "most relevance", found.top),
                ("least-relevance", least, found.bottom),
            )
        ]

        def relevance(case: str) -> Tensor:
            subject, index = self._inputs.cohort[case], self._unit.index
            return relevance_map(self._contexts, subject, self._tap, index, target, rule)

        return self._figures(ends, "relevance", f" for {about}", relevance)

    def _figures(
        self, ends: Sequence[_End], units: str, about: str, read: Callable[[str], Tensor]
    ) -> list[PageFigure]:
        """A figure for each end, with the same colors, so that they can be compared."""
        maps = {case: read(case) for end in ends for case, _ in end.cases}
        limit = max((float(values.abs().max()) for values in maps.values()), default=0.0) or 1.0
        return [self._figure(end, maps, limit, units, about) for end in ends if end.cases]

    def _figure(
        self, end: _End, maps: Mapping[str, Tensor], limit: float, units: str, about: str
    ) -> PageFigure:
        unit, concept = self._unit.name, self._pair.concept
        overlays = []
        for case, value in end.cases:
            subject = self._inputs.cohort[case]
            picture = overlaid(
                subject.image,
                maps[case],
                solid=self._on(case),
                dashed=self._inputs.concepts[concept].of(subject),
                limit=limit,
                sign="signed",
            )
            overlays.append((f"{case}: {number(value)}", picture))
        figure = exemplar_figure(
            f"{unit}  ·  {end.words}{about}",
            f"Solid: where the unit is on. Dashed: {concept}. Colors: {units}.",
            overlays,
            units,
            ("negative", "positive"),
        )
        caption = f"Cases with the {end.words}{about}."
        alt = f"{units} of {unit} in the cases with the {end.words}{about}, beside {concept}"
        return kept_figure(
            self._inputs.folder, f"{unit}_{concept}_{end.name}", figure, caption, alt
        )

    def _activation(self, case: str) -> Tensor:
        context = self._contexts.open(self._inputs.cohort[case])
        seen = observe(context, (self._tap,))
        read = self._reading.encode(seen[self._tap])[self._row]
        return seen.layers.on_image(self._tap, read[None])[0].cpu()

    def _on(self, case: str) -> Tensor:
        """Where the unit is on; nowhere if no threshold could be chosen."""
        values = self._activation(case)
        if self._pair.threshold is None:
            return torch.zeros_like(values)
        return values >= self._pair.threshold
