"""Synthesis as a study names it: images that drive units, beside their reliability."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.pictures import counted, kept_figure
from voxplain.engine.cohort import CohortCase
from voxplain.errors import ConfigError, VoxplainError
from voxplain.records.analysis_page import AnalysisPage, PageCard, PageVerdict
from voxplain.records.atomic import atomic_write
from voxplain.records.synthesis import ReliabilityRecord
from voxplain.synthesis import (
    ImageStatistics,
    Synthesis,
    SynthesisMethod,
    measure,
    parse_synthesis,
    reliability_panel,
    synthesize,
)

_WITHOUT_PANEL = ("inverted_representation", "activation_grid", "activation_atlas")


def _methods(value: Any) -> Any:
    given = [value] if isinstance(value, str | Mapping | SynthesisMethod) else value
    return tuple(parse_synthesis(each) for each in given)


StudySynthesis = Annotated[
    tuple[SerializeAsAny[SynthesisMethod], ...], BeforeValidator(_methods), Field(min_length=1)
]


@register
class VisualizationAnalysis(Analysis):
    """Images that drive units, classes or layers, with verdicts on when to believe them.

    Attributes:
        methods: Of synthesis, each a name or its parameters.
        units: Class numbers, ``layer:channel``, layers, or objectives.
        case: The case that methods which start from an image use; the first one if None.
        reliability: Whether the reliability of every image is measured.
    """

    family: ClassVar[str] = "synthesis"
    reference: ClassVar[str] = "Olah et al., 2017; Hamblin et al., 2024; Geirhos et al., 2024"

    name: Literal["visualization"] = "visualization"
    methods: StudySynthesis = Field(default=("feature_accentuation",), validate_default=True)
    units: tuple[int | str | dict[str, Any], ...] = Field(min_length=1)
    case: str | None = None
    reliability: bool = True

    def cost(self, cases: int) -> AnalysisCost:
        """Steps of every optimization, and what reliability takes."""
        runs = 4 if self.reliability else 1  # three seeds and a random network
        steps = sum(
            getattr(method, "steps", 1) * getattr(method, "images", 1) for method in self.methods
        )
        passes = runs * len(self.units) * steps
        forwards = cases * self.reliability * len(self.units) * len(self.methods)
        return AnalysisCost(passes + forwards, forwards, "steps of optimizations")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Synthesizes the images of every unit, and judges them."""
        statistics, case = measure(inputs.cohort), self._case(inputs)
        cards, records, remarks = [], [], []
        for method in self.methods:
            try:
                found = self._made(inputs, method, case, statistics)
            except VoxplainError as error:
                if len(self.methods) == 1:
                    raise
                remarks.append(f"{method.key}: {error}")
                continue
            for synthesis in found.values():
                path = synthesis.save(inputs.folder, case.id)
                panel = self._panel(inputs, synthesis, case, remarks)
                cards.append(_card(inputs, synthesis, panel))
                record = json.loads(path.read_text())
                record["reliability"] = panel.model_dump(mode="json") if panel else None
                records.append(record)
        if not records:
            raise ConfigError("; ".join(remarks))
        page = AnalysisPage(
            title="What drives units", lead=_lead(cards), remarks=remarks, cards=cards
        )
        page.write(inputs.folder)
        atomic_write(inputs.folder / RESULT, json.dumps(records, indent=1))

    def _case(self, inputs: AnalysisInputs) -> CohortCase:
        """The case that is started from.

        Raises:
            ConfigError: If there is none of this id.
        """
        name = self.case or inputs.cohort.ids[0]
        if name not in inputs.cohort.ids:
            raise ConfigError(f"{self.key}: there is no case {name!r}")
        return inputs.cohort[name]

    def _made(
        self,
        inputs: AnalysisInputs,
        method: SynthesisMethod,
        case: CohortCase,
        statistics: ImageStatistics,
    ) -> dict[str, Synthesis]:
        return synthesize(
            inputs.model,
            inputs.cohort if method.name == "activation_atlas" else case.image,
            method,
            list(self.units),
            statistics=statistics,
            seed=inputs.seed,
            progress=inputs.progress,
        )

    def _panel(
        self, inputs: AnalysisInputs, synthesis: Synthesis, case: CohortCase, remarks: list[str]
    ) -> ReliabilityRecord | None:
        if not self.reliability or synthesis.method.name in _WITHOUT_PANEL:
            return None
        image = case.image if synthesis.method.from_image else None
        try:
            return reliability_panel(inputs.model, synthesis, inputs.cohort, image=image).record
        except VoxplainError as error:
            remarks.append(f"{synthesis.unit}: its reliability was not measured: {error}")
            return None


def _lead(cards: list[PageCard]) -> list[str]:
    text = f"{counted(len(cards), 'unit was', 'units were')} driven by synthesized images."
    return [text, "What such an image shows is what the unit answers to, not what patients have."]


def _card(
    inputs: AnalysisInputs, synthesis: Synthesis, panel: ReliabilityRecord | None
) -> PageCard:
    name = f"{synthesis.label}_{synthesis.unit}"
    alt = f"synthesized images of {synthesis.unit} by {synthesis.label}"
    caption = panel.caption if panel and panel.caption else synthesis.method.meaning()
    verdicts = [
        PageVerdict(topic=item.item, status=item.verdict, text=item.in_words)
        for item in (panel.items if panel else ())
    ]
    return PageCard(
        title=f"{synthesis.unit}",
        subtitle=synthesis.label,
        verdicts=verdicts,
        figures=[kept_figure(inputs.folder, name, synthesis.figure, caption, alt)],
    )
