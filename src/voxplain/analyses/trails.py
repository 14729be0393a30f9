"""Links and trails as a study names them: how concepts lead through the layers to a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.concept_units import (
    ConceptUnitSettings,
    split_cohort,
    units_of_concepts,
)
from voxplain.analyses.networks import compared_random_network
from voxplain.analyses.target_class import class_of, name_of
from voxplain.analyses.trails_page import trails_page
from voxplain.concepts.links import (
    ClassOutput,
    ConceptUnits,
    Edge,
    LinkSettings,
    find_skips,
    link,
    links_record,
    named_skips,
)
from voxplain.concepts.links.donors import ReplacedBy
from voxplain.concepts.links.nodes import OUTPUT
from voxplain.concepts.links.skips import CASES, MOST_LAYERS
from voxplain.concepts.trails import TrailSettings, trails, write_trails
from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.errors import nearest
from voxplain.records.atomic import atomic_write

_PASSES = 4
"""Forwards of a case that replace a set of units, or all others, with what they are compared to."""

Skips = Literal["auto", "none"] | tuple[tuple[str, str], ...]
"""Which skip connections are tested: those that are found, none, or pairs of layers."""


@register
class TrailsAnalysis(Analysis):
    """How concepts of one layer lead to concepts of the next and to a class, by interventions.

    The units of a concept in a layer are those that agree most with it on the cases of one half of
    the patients. Links are measured on these cases, trails are validated on the others. Layers that
    follow each other are linked, and layers between which a skip connection leads around others:
    along it, the layers between are held at their clean value.

    Attributes:
        layers: Paths of the layers, in any order.
        skips: Skip connections. ``auto`` finds every pair of layers, and of a layer and the output,
            with a route around the analyzed layers between them, by replacing the first while
            those between are held; ``none`` tests none; or pairs of layers, as
            ``[[enc1, dec1], [enc2, output]]``.
        units: Units per concept and layer, at most.
        smallest_iou: What units must reach, on the cases that they are chosen on.
        replaced_by: What values of units become.
        null_sets: Random sets of units that each link is compared with.
        trails: Strongest trails.
        random_trails: Random trails that each is compared with.
        value: Labels of the class in the references; that of the target if empty.
        held_out: Share of the patients on which trails are validated.
        most_cases: Cases of either half, at most.
        random_network: Whether links of a network with random weights are measured beside it.
    """

    family: ClassVar[str] = "trails"
    needs_target: ClassVar[bool] = True
    needs_concepts: ClassVar[bool] = True
    revision: ClassVar[int] = 2

    name: Literal["trails"] = "trails"
    layers: tuple[str, ...] = Field(min_length=1)
    skips: Skips = "auto"
    units: int = Field(default=4, ge=1)
    smallest_iou: float = Field(default=0.04, ge=0, lt=1)
    replaced_by: ReplacedBy = "resample"
    null_sets: int = Field(default=50, ge=0)
    trails: int = Field(default=5, ge=1)
    random_trails: int = Field(default=100, ge=1)
    value: tuple[int, ...] = ()
    held_out: float = Field(default=0.5, gt=0, lt=1)
    most_cases: int = Field(default=16, ge=2)
    random_network: bool = True

    @model_validator(mode="after")
    def _check_skips(self) -> Self:
        names = [*self.layers, OUTPUT]
        for name in (name for pair in self._pairs for name in pair):
            if name not in names:
                raise ValueError(f"skips: {name!r} is no analyzed layer; {nearest(name, names)}")
        return self

    @property
    def _pairs(self) -> tuple[tuple[str, str], ...]:
        return () if isinstance(self.skips, str) else self.skips

    def cost(self, cases: int) -> AnalysisCost:
        """Replacements of every node with its null, twice with a random network.

        How many skip connections will be found is not known; half as many as layers are counted.
        """
        shown, layers = min(cases, self.most_cases), len(self.layers)
        edges, searched = layers + len(self._pairs), 0
        if self.skips == "auto":
            edges += max(0, layers - 1) // 2
            searched = CASES * layers * (layers - 1) // 2 * (layers <= MOST_LAYERS)
        links = edges * (self.null_sets + _PASSES) * shown
        found = self.trails * (self.random_trails + 2) * shown
        forwards = 3 * cases + links * (1 + self.random_network) + found + searched
        return AnalysisCost(forwards, forwards, "replacements of units, with their nulls")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Chooses units, links them, follows trails and draws them."""
        label = class_of(inputs, self.key)
        output = ClassOutput(name_of(inputs, label), (label,), self.value or (label,))
        selection, judged = split_cohort(inputs, self.held_out)
        asked = ConceptUnitSettings(self.layers, self.units, self.smallest_iou)
        nodes = units_of_concepts(inputs, asked, selection, judged)
        settings = LinkSettings(
            replaced_by=self.replaced_by, null_sets=self.null_sets, seed=inputs.seed
        )
        control, remarks = compared_random_network(inputs, self.random_network)
        skips, more = self._skips(inputs, selection, nodes)
        links = link(
            inputs.model,
            self._few(selection),
            nodes,
            (output,),
            skips=skips,
            settings=settings,
            control=control,
        )
        found = trails(
            inputs.model,
            self._few(judged),
            links,
            TrailSettings(
                count=self.trails,
                surviving=False,
                random_trails=self.random_trails,
                seed=inputs.seed,
            ),
        )
        trails_page(inputs, found, [*remarks, *more]).write(inputs.folder)
        record = write_trails(inputs.folder, found)
        atomic_write(inputs.folder / "links.json", links_record(links).model_dump_json(indent=1))
        atomic_write(inputs.folder / RESULT, record.model_dump_json(indent=1))

    def _skips(
        self, inputs: AnalysisInputs, cohort: Cohort, nodes: Sequence[ConceptUnits]
    ) -> tuple[tuple[Edge, ...], list[str]]:
        """The skip connections that are tested, and a remark where they were not looked for."""
        layers = tuple(dict.fromkeys(node.tap for node in nodes))
        if self.skips == "none":
            return (), ["skip connections are not tested (skips: none)"]
        if self.skips == "auto":
            if len(layers) > MOST_LAYERS:
                words = f"among {MOST_LAYERS} layers at most, and {len(layers)} are analyzed"
                return (), [f"skip connections are looked for {words}; name them under skips"]
            few = self._few(cohort)
            return find_skips(
                inputs.model, few, layers, replaced_by=self.replaced_by, seed=inputs.seed
            ), []
        context = Context.open(inputs.model, next(iter(cohort)).image)
        return named_skips(self.skips, layers, context), []

    def _few(self, cohort: Cohort) -> Cohort:
        """Evenly spread cases, as many as are allowed."""
        ids, count = cohort.ids, min(len(cohort), self.most_cases)
        return cohort.only([ids[number * len(ids) // count] for number in range(count)])
