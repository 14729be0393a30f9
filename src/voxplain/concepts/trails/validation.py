"""Whether a trail carries the answer: keep nothing else, or remove it, against random trails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from voxplain.concepts.links.analysis import Links
from voxplain.concepts.links.class_scores import ClassScores
from voxplain.concepts.links.donors import Donors, ReplacedBy
from voxplain.concepts.links.nodes import ConceptUnits
from voxplain.concepts.links.significance import Array, numbers, p_value
from voxplain.concepts.trails.paths import Trail
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.intervened_rows import InterventionRows, Row
from voxplain.engine.interventions import Replacement, UnitSet, resized
from voxplain.engine.observation import observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.models.model import Model
from voxplain.statistics import benjamini_hochberg

Units = Mapping[Tap, UnitSet]
"""The units of a trail by layer."""
Signature = tuple[tuple[Tap, int, bool], ...]
"""Layer and size of each node of a trail, and whether it has channels."""
_LEAST = 1e-6
"""Of the sum of magnitudes: a smaller difference between clean and replaced has no shares."""
_SHARES = ("kept_logit", "kept_dice", "lost_logit", "lost_dice", "carried")


@dataclass(frozen=True)
class Share:
    """A part of the clean value of a class, over cases.

    Attributes:
        value: Of the trail: 1 where it is the whole, 0 where it is that of replacing everything.
        random: Mean over random trails of the same lengths and sizes.
        random_high: 95th percentile over them.
        p: Share of random trails that reach the value.
        q: The same, adjusted over all trails (Benjamini-Hochberg).
    """

    value: float
    random: float
    random_high: float
    p: float
    q: float = math.nan


@dataclass(frozen=True)
class Validation:
    """What a trail carries.

    Attributes:
        kept_logit: Share of the mean logit that is left when all other units of analyzed layers
            are replaced.
        kept_dice: The same of Dice.
        lost_logit: Share of the mean logit that is lost when the units of the trail are replaced.
        lost_dice: The same of Dice.
        carried: The smaller of the kept and the lost share of the logit, which decides: random
            trails that pass through one narrow place lose as much, but keep nothing.
        clean: Mean logit and Dice on unchanged images.
        replaced: Mean logit and Dice with all units of analyzed layers replaced.
        validated: Whether random trails do not carry as much, after adjustment over all trails.
    """

    kept_logit: Share
    kept_dice: Share
    lost_logit: Share
    lost_dice: Share
    carried: Share
    clean: tuple[float, float]
    replaced: tuple[float, float]
    validated: bool


def validate(
    model: Model,
    cohort: Cohort,
    links: Links,
    trails: Sequence[Trail],
    *,
    random_trails: int = 200,
    replaced_by: ReplacedBy = "resample",
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[Validation, ...]:
    """Keeps only a trail, and removes it, in every case.

    With the mean logit (or Dice) s of the class, clean, with everything replaced, with all but the
    trail replaced and with the trail replaced, sums over cases give the shares

    ``kept = sum(s_kept - s_replaced) / sum(s_clean - s_replaced)``
    ``lost = sum(s_clean - s_removed) / sum(s_clean - s_replaced)``

    Args:
        model: The network.
        cohort: The cases.
        links: The links that trails are made of; their nodes say which layers are analyzed.
        trails: The trails.
        random_trails: How many random ones, of sets of the same sizes in the same layers.
        replaced_by: What values become.
        alpha: False discovery rate over the trails.
        seed: Of donors and random trails.
    """
    if not trails:
        return ()
    plan = _ValidationPlan.of(model, cohort, links, trails, random_trails, seed)
    donors = Donors(model, cohort, plan.taps, replaced_by, seed)
    cases = [numbers(plan.scores(case, donors)) for case in cohort]
    found = [plan.validation(np.stack(cases), number) for number in range(len(trails))]
    return _judged(found, alpha)


def _judged(found: Sequence[Validation], alpha: float) -> tuple[Validation, ...]:
    adjusted = {
        name: benjamini_hochberg([getattr(each, name).p for each in found]) for name in _SHARES
    }
    judged = []
    for number, each in enumerate(found):
        shares = {name: replace(getattr(each, name), q=adjusted[name][number]) for name in _SHARES}
        carried = shares["carried"]
        is_validated = carried.q <= alpha and carried.value > 0
        judged.append(replace(each, **shares, validated=is_validated))
    return tuple(judged)


@dataclass(frozen=True, eq=False)
class _ValidationPlan:
    """All rows that run for a case: everything replaced, the trails, and random ones.

    Attributes:
        model: The network.
        links: With the classes.
        taps: The analyzed layers.
        trails: The trails.
        units: Of each trail.
        drawn: Of random trails, by the layers and sizes of a trail.
    """

    model: Model
    links: Links
    taps: tuple[Tap, ...]
    trails: tuple[Trail, ...]
    units: tuple[Units, ...]
    drawn: Mapping[Signature, tuple[Units, ...]]

    @classmethod
    def of(
        cls,
        model: Model,
        cohort: Cohort,
        links: Links,
        trails: Sequence[Trail],
        count: int,
        seed: int,
    ) -> _ValidationPlan:
        nodes = {node.name: node for node in links.nodes}
        taps = tuple(dict.fromkeys(node.tap for node in links.nodes))
        layers = Context.open(model, next(iter(cohort)).image).layers
        layers.locate(taps)
        channels = {tap: layers.channels(tap) for tap in taps}
        on_trail = [[nodes[name] for name in trail.nodes] for trail in trails]
        drawn = {_signature(each): tuple(_random(each, channels, count, seed)) for each in on_trail}
        units = tuple({node.tap: node.units for node in each} for each in on_trail)
        return cls(model, links, taps, tuple(trails), units, drawn)

    @property
    def _all(self) -> list[Units]:
        return [*self.units, *(units for each in self.drawn.values() for units in each)]

    def scores(self, case: CohortCase, donors: Donors) -> torch.Tensor:
        """Mean logits and Dice of all classes in every row, ``(rows, 2 x classes)``.

        The rows are the unchanged image, everything replaced, each set of units kept, and each
        removed.
        """
        context = Context.open(self.model, case.image)
        clean = observe(context, self.taps).values
        donor = donors.of(case, context)
        values = {tap: resized(donor[tap], clean[tap].shape[1:]) for tap in self.taps}
        scores = ClassScores(context, case, self.links.outputs)
        rows: list[Row] = [(), self._kept({}, values)]
        rows += [self._kept(units, values) for units in self._all]
        rows += [_removed(units, values) for units in self._all]
        parts: list[torch.Tensor] = []

        def seen(_: range, __: object, output: torch.Tensor | None) -> None:
            assert output is not None
            parts.append(scores(output))

        InterventionRows(context, self.taps).run(rows, (), seen)
        return torch.cat(parts)

    def _kept(self, units: Units, values: Mapping[Tap, torch.Tensor]) -> Row:
        """All units of analyzed layers replaced but these."""
        return tuple(
            Replacement(tap, units.get(tap, UnitSet()), values[tap], outside=True)
            for tap in self.taps
        )

    def validation(self, scores: Array, number: int) -> Validation:
        """Of one trail, from the scores of all cases ``(cases, rows, 2 x classes)``."""
        trail = self.trails[number]
        names = [output.name for output in self.links.outputs]
        logit = 2 * names.index(trail.output)
        shares = [self._shares(scores[..., logit + measure], number) for measure in (0, 1)]
        columns = scores[:, :2, logit : logit + 2]
        with np.errstate(all="ignore"):
            clean, replaced = _means(columns[:, 0]), _means(columns[:, 1])
        (kept_logit, lost_logit, carried), (kept_dice, lost_dice, _) = shares
        return Validation(
            kept_logit, kept_dice, lost_logit, lost_dice, carried, clean, replaced, False
        )

    def _shares(self, scores: Array, number: int) -> list[Share]:
        """Kept and lost share of one measure ``(cases, rows)``, and the smaller of both."""
        known = scores[np.isfinite(scores[:, 0])]
        sums = known.sum(axis=0)
        clean, everything = sums[0], sums[1]
        span = clean - everything
        scale = np.abs(known[:, :2]).sum()
        whole = span if len(known) and span > _LEAST * scale else math.nan
        alone, removed = np.split(sums[2:], 2)
        kept, lost = (alone - everything) / whole, (clean - removed) / whole
        rows = self._rows_of(number)
        parts = (kept, lost, np.minimum(kept, lost))
        return [_share(values[number], values[rows]) for values in parts]

    def _rows_of(self, number: int) -> slice:
        """Which sets of units are the random trails of a trail."""
        nodes = {node.name: node for node in self.links.nodes}
        wanted = _signature([nodes[name] for name in self.trails[number].nodes])
        start = len(self.units)
        for signature, drawn in self.drawn.items():
            if signature == wanted:
                return slice(start, start + len(drawn))
            start += len(drawn)
        raise KeyError(wanted)


def _removed(units: Units, values: Mapping[Tap, torch.Tensor]) -> Row:
    return tuple(Replacement(tap, chosen, values[tap]) for tap, chosen in units.items())


def _means(columns: Array) -> tuple[float, float]:
    known = columns[np.isfinite(columns[:, 0])]
    logit, dice = known.mean(axis=0) if len(known) else (math.nan, math.nan)
    return float(logit), float(dice)


def _share(value: float, random: Array) -> Share:
    known = random[np.isfinite(random)]
    if not len(known) or not math.isfinite(value):
        return Share(float(value), math.nan, math.nan, math.nan)
    high = float(np.quantile(known, 0.95))
    return Share(float(value), float(known.mean()), high, p_value(float(value), known))


def _signature(nodes: Sequence[ConceptUnits]) -> Signature:
    """Trails of one signature share their random ones."""
    return tuple((node.tap, node.size, node.units.directions is None) for node in nodes)


def _random(
    nodes: Sequence[ConceptUnits], channels: Mapping[Tap, int], count: int, seed: int
) -> Iterator[Units]:
    """Trails through random sets of units, as large as those of a trail and in the same layers."""
    source = generator(seed, "trails", *_signature(nodes))
    for _ in range(count):
        yield {node.tap: _random_set(node, channels[node.tap], source) for node in nodes}


def _random_set(node: ConceptUnits, channels: int, source: torch.Generator) -> UnitSet:
    if node.units.directions is not None:
        return UnitSet(directions=torch.randn(node.size, channels, generator=source))
    return UnitSet(tuple(torch.randperm(channels, generator=source)[: node.size].tolist()))
