"""The direction of a concept in a layer, and how many units it takes to tell where the concept is.

Paper: Fong and Vedaldi, Net2Vec: Quantifying and explaining how concepts are encoded by filters in
deep neural networks, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from voxplain.concepts.activation_sample import ActivationSample, sample_activations
from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.controls import control_concept
from voxplain.concepts.directions.direction_records import ConceptDirectionRecord, UnitCountRecord
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.directions.held_out_agreement import (
    DirectionReader,
    HeldOutIou,
    agreements,
    best_thresholds,
)
from voxplain.concepts.directions.logistic import LogisticFit, fit_logistic
from voxplain.concepts.held_out import parted
from voxplain.concepts.places import RegionOfInterest, image_foreground
from voxplain.engine.cohort import Cohort
from voxplain.errors import ConfigError, InputError
from voxplain.models.model import Model
from voxplain.statistics import FEWEST

_EDGES = 1023
_WORDS = "weighted cross-entropy over channels (Net2Vec)"


@dataclass(frozen=True, eq=False)
class ConceptDirection:
    """The direction of a concept in a layer.

    Attributes:
        directions: The direction of all units, alone; it is read, saved and intervened on.
        threshold: Of its reading: the concept is said to be where the reading is at least this.
        record: The curve over the number of units, controls, and remarks.
    """

    directions: Directions
    threshold: float
    record: ConceptDirectionRecord

    @property
    def single(self) -> UnitCountRecord:
        """The best single unit."""
        return self.record.curve[0]

    @property
    def all_units(self) -> UnitCountRecord:
        """All units together."""
        return self.record.curve[-1]


def concept_direction(
    model: Model | nn.Module,
    cohort: Cohort,
    concept: Concept,
    layer: str | None = None,
    *,
    counts: Sequence[int] = (1, 2, 5, 10, 20, 50),
    held_out: float | Cohort = 0.5,
    per_case: int = 2048,
    region: RegionOfInterest = image_foreground,
    ridge: float = 1e-4,
    intercept: bool = True,
    random_network: Model | nn.Module | None = None,
    seed: int = 0,
) -> ConceptDirection:
    """Where a concept lies in a layer: M(x; w) = sigmoid(up(sum_k w_k A_k) + b).

    w minimizes the cross-entropy balanced by the mean share of the concept, on voxels of the
    selection cases. The single unit is that of the largest IoU there, of either sign; of more units
    those with the largest |w_k| sd_k are fitted again, from all units down to few. Thresholds are
    those of the largest IoU over all voxels of the selection cases; what is reported is the IoU
    over those of held-out patients.
    A concept of the whole image, or a layer without places, is scored image by image.

    Controls: the same with the concept at random places (masks moved around the grid, values of
    whole images dealt to other cases), and with the random network where one is given.

    Args:
        model: A network, or a model.
        cohort: The cases; half and half by default, split by patient.
        concept: What is looked for.
        layer: Path of the layer; None is the last feature layer.
        counts: Numbers of units; all units follow.
        held_out: Share of the patients that are held out, or the cases; then all
            of the cohort is selected on.
        per_case: Voxels of each case in the fit, half of them in the concept where there are so
            many.
        region: The voxels that count.
        ridge: Weight of |w|^2 / 2, on channels of unit variance.
        intercept: Whether there is a b; without it, as published, M is 0.5 where A is 0.
        random_network: The architecture with random weights.
        seed: Of split, draws and intervals.

    Raises:
        InputError: If there are fewer than two patients, or the concept is nowhere, or everywhere.
        ModelError: If the layer does not exist, or where its cells lie cannot be derived.
    """
    if min(counts, default=1) < 1:
        raise ConfigError(f"numbers of units start at 1, not {min(counts)}")
    selection, scored = parted(cohort, held_out, seed, "a direction")
    search = _Search(
        layer, tuple(counts), per_case, region, ridge, intercept, seed, selection, scored
    )
    contexts = CaseContexts(model, seed)
    found = search.of(contexts, concept)
    moved = control_concept(concept, (selection, scored), seed)
    controls = {"random labels": search.of(contexts, moved).curve}
    if random_network is not None:
        controls["random network"] = search.of(CaseContexts(random_network, seed), concept).curve
    record = ConceptDirectionRecord(
        concept=concept.name,
        layer=found.directions.layer,
        curve=found.curve,
        controls=controls,
        selection=selection.ids,
        held_out=scored.ids,
        remarks=_remarks(scored),
    )
    return ConceptDirection(found.directions, found.curve[-1].threshold, record)


def _remarks(scored: Cohort) -> tuple[str, ...]:
    patients = len({*scored.patients})
    if patients >= FEWEST:
        return ()
    return (f"{patients} held-out patients are too few for an interval, which takes {FEWEST}",)


@dataclass(frozen=True, eq=False)
class _FoundCurve:
    directions: Directions
    curve: tuple[UnitCountRecord, ...]


@dataclass(frozen=True, eq=False)
class _Search:
    """Finds directions on selection cases and scores them on held-out ones."""

    layer: str | None
    counts: tuple[int, ...]
    per_case: int
    region: RegionOfInterest
    ridge: float
    intercept: bool
    seed: int
    selection: Cohort
    scored: Cohort = field(repr=False)

    def of(self, contexts: CaseContexts, concept: Concept) -> _FoundCurve:
        sample = self._sample(contexts, concept)
        fits = self._fits(sample)
        readout = torch.stack([fit.weights for fit in fits.values()])
        offset = torch.tensor([fit.intercept for fit in fits.values()])
        names = tuple(f"{concept.name}, {len(channels)} units" for channels in fits)
        several = Directions.linear(sample.layer, readout, names, offset, _WORDS)
        reader = DirectionReader(contexts, several, concept, self.region)
        edges = _edges(several.encode(sample.values.T))
        thresholds, selected = best_thresholds(reader, self.selection, edges)
        scored = agreements(reader, self.scored, thresholds, self.seed)
        curve = tuple(
            _of_count(*row) for row in zip(fits, thresholds, selected, scored, strict=True)
        )
        alone = Directions.linear(
            sample.layer, readout[-1:], (concept.name,), offset[-1:], found_by=_WORDS
        )
        return _FoundCurve(alone, curve)

    def _sample(self, contexts: CaseContexts, concept: Concept) -> ActivationSample:
        (sample,) = sample_activations(
            contexts,
            self.selection,
            () if self.layer is None else (self.layer,),
            (concept,),
            per_case=self.per_case,
            places="images" if concept.kind == "image" else "voxels",
            region=self.region,
            seed=self.seed,
        ).values()
        sample = sample.rows(~sample.concepts[:, 0].isnan())
        share = float((sample.concepts[:, 0] >= 0.5).float().mean()) if len(sample.values) else 0.0
        if share in (0.0, 1.0):
            where = "everywhere" if share else "nowhere"
            raise InputError(
                f"concept {concept.name!r} is {where} in the region of interest of the "
                f"{len(self.selection)} selection cases, so that it has no direction; add cases"
            )
        return sample

    def _fits(self, sample: ActivationSample) -> dict[tuple[int, ...], LogisticFit]:
        """A fit for each set of channels, the largest set last."""
        everything = tuple(range(sample.values.shape[1]))
        whole = self._fit(sample, everything)
        fits, last, kept = {everything: whole}, whole, torch.arange(len(everything))
        for count in sorted({*self.counts} - {1}, reverse=True):
            if count < len(kept):
                kept = kept[last.importance[kept].argsort(descending=True, stable=True)[:count]]
                last = self._fit(sample, tuple(kept.tolist()))
                fits[tuple(kept.tolist())] = last
        unit, sign = best_unit(sample)
        alone = torch.zeros(len(everything))
        alone[unit] = sign
        fits[(unit,)] = LogisticFit(alone, 0.0, alone.abs())
        return dict(reversed(fits.items()))

    def _fit(self, sample: ActivationSample, channels: tuple[int, ...]) -> LogisticFit:
        fit = fit_logistic(
            sample.values[:, list(channels)],
            (sample.concepts[:, 0] >= 0.5).float(),
            sample.weights,
            ridge=self.ridge,
            intercept=self.intercept,
        )
        weights, importance = torch.zeros(2, sample.values.shape[1])
        weights[list(channels)], importance[list(channels)] = fit.weights, fit.importance
        return replace(fit, weights=weights, importance=importance)


def _of_count(
    channels: tuple[int, ...], threshold: Tensor, selected: Tensor, scored: HeldOutIou
) -> UnitCountRecord:
    return UnitCountRecord(
        units=len(channels),
        channels=channels,
        threshold=float(threshold),
        selection_iou=float(selected),
        iou=scored.iou,
        interval=scored.interval,
        by_case=scored.by_case,
    )


def best_unit(sample: ActivationSample) -> tuple[int, int]:
    """The channel and the sign whose thresholded value has the largest IoU with the concept."""
    truth = (sample.concepts[:, 0] >= 0.5).double() * sample.weights
    by_sign = torch.tensor(
        [
            [_best_iou(sign * column, truth, sample.weights) for column in sample.values.T]
            for sign in (1, -1)
        ]
    )
    sign, unit = divmod(int(by_sign.argmax()), by_sign.shape[1])
    return unit, 1 - 2 * sign


def _best_iou(values: Tensor, truth: Tensor, weights: Tensor) -> float:
    """The largest IoU over all thresholds; equal values are on the same side."""
    ordered = values.argsort(descending=True, stable=True)
    hits, above = truth[ordered].cumsum(0), weights[ordered].double().cumsum(0)
    iou = hits / (above + hits[-1] - hits)
    values = values[ordered]
    is_last = torch.ones_like(values, dtype=torch.bool)
    is_last[:-1] = values[:-1] > values[1:]
    return float(iou[is_last].max())


def _edges(scores: Tensor) -> Tensor:
    """Thresholds to choose from, ``(D, edges)`` ascending: half way between sampled readings."""
    ordered = scores.sort(dim=1).values
    picks = torch.linspace(0, ordered.shape[1] - 1, min(_EDGES, ordered.shape[1])).round().long()
    chosen = ordered[:, picks]
    return torch.cat([chosen[:, :1], (chosen[:, 1:] + chosen[:, :-1]) / 2], dim=1)
