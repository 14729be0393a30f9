"""The best unit per concept and slice, at a threshold that the slice itself gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxplain.concepts.bank.bank import ConceptBank
from voxplain.concepts.dissection.case_masks import Remarks, compared_region, known_mask
from voxplain.concepts.dissection.units import LayerUnits, UnitReading
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.records.dissection import SliceBest

QUANTILES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15)


def best_per_slice(
    model: Model | nn.Module,
    cohort: Cohort,
    bank: ConceptBank,
    layers: Sequence[str] = (),
    *,
    units: Mapping[str, UnitReading] | None = None,
    quantiles: Sequence[float] = QUANTILES,
    axis: int = -1,
    region: str = "foreground",
) -> tuple[SliceBest, ...]:
    """For every slice and concept the unit with the highest IoU, M = [Phi(x) >= T(x)].

    T(x) is a quantile of the map of the unit in the slice. Unit and quantile are chosen on the
    slice that is scored, so that these numbers are higher than those of held-out cases; they are
    for comparison with published ones of this kind.

    Args:
        model: The network.
        cohort: The cases.
        bank: The concepts; only parts of images count.
        layers: Paths; all convolutional stages, after the activation, if empty.
        units: Channels or directions of some layers, instead of all of their channels.
        quantiles: Shares of the region in the slice in which a unit is on.
        axis: Along which a volume is cut into slices; a 2-D image is one slice.
        region: ``foreground``, ``image``, or the name of a concept of the bank.

    Returns:
        One per slice and concept, without slices that do not show the concept.

    Raises:
        ConfigError: If a quantile is not between 0 and 1.
    """
    if not quantiles or not all(0 < share < 1 for share in quantiles):
        raise ConfigError(f"quantiles are shares between 0 and 1, not {tuple(quantiles)}")
    source, found = LayerUnits(Model.of(model), layers, units), list[SliceBest]()
    where = region if region in ("foreground", "image") else bank[region]
    for case in cohort:
        inside = compared_region(case, where)
        found += _of_case(case, source, bank, inside, tuple(quantiles), axis)
    return tuple(found)


def _of_case(
    case: CohortCase,
    source: LayerUnits,
    bank: ConceptBank,
    inside: Tensor,
    quantiles: tuple[float, ...],
    axis: int,
) -> Iterator[SliceBest]:
    remarks = Remarks()
    known = {concept.name: known_mask(concept, case, remarks) for concept in bank.masks}
    masks = {name: mask & inside for name, mask in known.items() if mask is not None}
    numbers: list[int | None] = [None] if inside.ndim == 2 else [*range(inside.shape[axis])]
    best: dict[tuple[int | None, str], SliceBest] = {}
    for maps in source.of(case, remarks):
        for rows in maps.chunks(inside.numel()):
            placed, names = maps.on_image(rows), maps.names[rows]
            for number in numbers:
                shown = _cut(inside, number, axis)
                truth = {name: _cut(mask, number, axis)[shown] for name, mask in masks.items()}
                present = {name: mask for name, mask in truth.items() if mask.any()}
                if present:
                    values = _cut(placed, number, axis)[:, shown]
                    for each in _scored(case.id, number, values, present, names, quantiles):
                        key = (number, each.concept)
                        if key not in best or each.iou > best[key].iou:
                            best[key] = each
    order = {name: place for place, name in enumerate(masks)}
    yield from sorted(best.values(), key=lambda each: (each.slice or 0, order[each.concept]))


def _cut(values: Tensor, number: int | None, axis: int) -> Tensor:
    """One slice; axes are counted from the end, so that channels may come first."""
    if number is None:
        return values
    return values.select(axis if axis < 0 else axis - 3, number)


def _scored(
    case: str,
    number: int | None,
    values: Tensor,
    masks: Mapping[str, Tensor],
    names: Sequence[str],
    quantiles: Sequence[float],
) -> Iterator[SliceBest]:
    """The best of some units for every concept."""
    truth = torch.stack(list(masks.values())).float()
    size = truth.sum(dim=1)
    ordered, count = values.sort(dim=1, descending=True).values, values.shape[1]
    iou = []
    for share in quantiles:
        threshold = ordered[:, min(count, max(1, round(share * count))) - 1, None]
        is_on = (values >= threshold).float()
        both, on = is_on @ truth.T, is_on.sum(dim=1, keepdim=True)
        iou.append(torch.where(on < count, both / (on + size - both), 0.0))
    table: NDArray[np.float32] = torch.stack(iou).numpy()
    for concept, name in enumerate(masks):
        quantile, unit = divmod(int(table[..., concept].argmax()), table.shape[1])
        yield SliceBest(
            case=case,
            slice=number,
            concept=name,
            voxels=int(size[concept]),
            unit=names[unit],
            quantile=quantiles[quantile],
            iou=float(table[quantile, unit, concept]),
        )
