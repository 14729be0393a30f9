"""Agreement up to a distance, for borders that a unit follows a little beside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from voxplain.concepts.bank.bank import ConceptBank
from voxplain.concepts.bank.spec import signed_distance
from voxplain.concepts.dissection.case_masks import Remarks, compared_region, known_mask
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.concepts.dissection.units import LayerUnits, UnitMaps, UnitReading
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.extents import measured
from voxplain.models.model import Model
from voxplain.records.dissection import PairDissected, ToleranceScore
from voxplain.statistics import ratio_intervals


def within_tolerance(
    model: Model | nn.Module,
    cohort: Cohort,
    bank: ConceptBank,
    dissection: Dissection,
    tolerance: int | str,
    *,
    held_out: Cohort | None = None,
    units: Mapping[str, UnitReading] | None = None,
) -> tuple[ToleranceScore, ...]:
    """Scores the best unit of every concept with a tolerance, as surface distances do.

    Args:
        model: The network that was dissected.
        cohort: The cases that it was dissected on.
        bank: The concepts.
        dissection: Its best units and their thresholds.
        tolerance: In voxels, or in millimeters such as ``"2mm"``.
        held_out: As in :func:`dissect`.
        units: As in :func:`dissect`.

    Raises:
        ConfigError: If millimeters are given and the physical size is unknown.
    """
    record = dissection.record
    known = {each.name for each in record.concepts if each.kind == "mask"}
    best = [dissection.best(each.name) for each in bank.masks if each.name in known]
    pairs = [pair for pair in best if pair is not None]
    layers = {each.name: each.layer for each in record.units if each.origin == "layer"}
    paths = tuple(dict.fromkeys(layers[pair.unit] for pair in pairs))
    if not paths:
        return ()
    source, counts, patients = LayerUnits(Model.of(model), paths, units), [], []
    region = record.region if record.region in ("foreground", "image") else bank[record.region]
    for case in (cohort if held_out is None else held_out).only(record.held_out):
        inside = compared_region(case, region)
        counts.append(_counts(case, bank, source, inside, pairs, tolerance))
        patients.append(case.patient)
    return tuple(_scores(np.stack(counts), patients, pairs, tolerance))


def _counts(
    case: CohortCase,
    bank: ConceptBank,
    source: LayerUnits,
    inside: Tensor,
    pairs: list[PairDissected],
    tolerance: int | str,
) -> NDArray[np.float64]:
    """Voxels of unit near the concept, of the unit, of the concept near the unit, of the concept.

    ``(4, pairs)``.
    """
    remarks, found = Remarks(), np.zeros((4, len(pairs)))
    limit, spacing = measured(tolerance, case.image.rank, case.image.grid.spacing_mm)
    for maps in source.of(case, remarks):
        for number, pair in enumerate(pairs):
            mask = (
                known_mask(bank[pair.concept], case, remarks) if pair.unit in maps.names else None
            )
            if mask is None:
                continue
            truth, is_on = mask & inside, _on(maps, pair) & inside
            found[:, number] = [
                int((is_on & _near(truth, limit, spacing)).sum()),
                int(is_on.sum()),
                int((truth & _near(is_on, limit, spacing)).sum()),
                int(truth.sum()),
            ]
    return found


def _on(maps: UnitMaps, pair: PairDissected) -> Tensor:
    number = maps.names.index(pair.unit)
    assert pair.threshold is not None
    return maps.on_image(slice(number, number + 1))[0].double() >= pair.threshold


def _near(mask: Tensor, limit: float, spacing: tuple[float, ...]) -> Tensor:
    distance = signed_distance(mask, spacing)
    assert distance is not None
    return distance <= limit


def _scores(
    counts: NDArray[np.float64],
    patients: list[str],
    pairs: list[PairDissected],
    tolerance: int | str,
) -> list[ToleranceScore]:
    total = counts.sum(axis=0)
    ends = [ratio_intervals(counts[:, n], counts[:, n + 1], patients) for n in (0, 2)]
    scores = []
    for number, pair in enumerate(pairs):
        near, on, covered, size = total[:, number]
        precision = near / on if on else None
        recall = covered / size if size else None
        both = (precision or 0.0) + (recall or 0.0)
        is_defined = precision is not None and recall is not None
        f1 = 2 * (precision or 0.0) * (recall or 0.0) / both if both else 0.0
        scores.append(
            ToleranceScore(
                unit=pair.unit,
                concept=pair.concept,
                tolerance=tolerance,
                precision=precision,
                recall=recall,
                f1=f1 if is_defined else None,
                precision_interval=_interval(ends[0], number),
                recall_interval=_interval(ends[1], number),
            )
        )
    return scores


def _interval(ends: NDArray[np.float64] | None, number: int) -> tuple[float, float] | None:
    if ends is None or not np.isfinite(ends[:, number]).all():
        return None
    return float(ends[0, number]), float(ends[1, number])
