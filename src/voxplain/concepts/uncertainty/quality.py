"""Whether an uncertainty is high where the prediction is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.truth import average_precision, calibration_gaps, roc_auc
from voxplain.records.uncertainty import KeptRecord, QualityRecord, RankingRecord

THRESHOLDS = 51
"""How many uncertainty thresholds a curve of kept voxels has."""


@dataclass(frozen=True, eq=False)
class ComparedPrediction:
    """A prediction at some voxels, or for some images, beside what is true.

    Attributes:
        uncertainties: By kind, ``(n,)``.
        confidence: The probability whose calibration is judged, ``(n,)``: that of the predicted
            class, or of the class that is asked about.
        confirmed: Whether what the confidence is of is there, ``(n,)`` bool.
        wrong: Where the prediction is wrong, ``(n,)`` bool.
        predicted: Objects that are predicted, ``(classes, n)`` bool; none for scores.
        true: Objects that are there, of the same shape.
        names: Of the classes of the objects.
    """

    uncertainties: Mapping[str, Tensor]
    confidence: Tensor
    confirmed: Tensor
    wrong: Tensor
    predicted: Tensor
    true: Tensor
    names: tuple[str, ...] = ()


def quality_of(compared: ComparedPrediction, bins: int = 15) -> QualityRecord:
    """Calibration error, ranking of errors, and the prediction on what is kept.

    Args:
        compared: The prediction beside what is true.
        bins: Of the probability.
    """
    gaps, _ = calibration_gaps(compared.confidence, compared.confirmed, bins)
    adaptive, _ = calibration_gaps(compared.confidence, compared.confirmed, bins, "equal_mass")
    errors, count = int(compared.wrong.sum()), len(compared.wrong)
    remarks = []
    if errors in (0, count):
        what = "right" if errors == 0 else "wrong"
        remarks.append(f"every prediction is {what}, so there is nothing to rank")
    rankings = {
        kind: _ranking(values, compared.wrong) for kind, values in compared.uncertainties.items()
    }
    return QualityRecord(
        voxels=count,
        error_share=errors / count,
        calibration_error=float(gaps.mean()),
        adaptive_error=float(adaptive.mean()),
        rankings=rankings,
        kept=_kept(compared),
        remarks=remarks,
    )


def _ranking(values: Tensor, wrong: Tensor) -> RankingRecord:
    share = float(wrong.double().mean())
    if not 0 < share < 1:
        return RankingRecord(chance=share)
    return RankingRecord(
        auprc=average_precision(values, wrong), roc_auc=roc_auc(values, wrong), chance=share
    )


def _kept(compared: ComparedPrediction) -> list[KeptRecord]:
    """The prediction on what is at most as uncertain as each threshold."""
    ordered, order = compared.uncertainties["total"].sort()
    thresholds = torch.linspace(0, float(ordered[-1]), THRESHOLDS, dtype=ordered.dtype)
    thresholds[-1] = ordered[-1]
    taken = torch.searchsorted(ordered, thresholds.to(ordered.device), right=True)
    predicted, true = compared.predicted[:, order], compared.true[:, order]
    hits = _up_to(predicted & true, taken)
    sizes = _up_to(predicted, taken) + _up_to(true, taken)
    right = _up_to(~compared.wrong[order][None], taken)[0]
    found = []
    for number, count in enumerate(taken.tolist()):
        dice = _dice(hits[:, number], sizes[:, number])
        found.append(
            KeptRecord(
                threshold=float(thresholds[number]),
                share=count / len(ordered),
                by_class=dict(zip(compared.names, dice, strict=False)),
                dice=_mean(dice),
                accuracy=float(right[number]) / count if count else None,
            )
        )
    return found


def _up_to(inside: Tensor, taken: Tensor) -> Tensor:
    """How many of the first ``taken`` positions are inside, ``(classes, thresholds)`` float64."""
    sums = torch.cat([inside.new_zeros(len(inside), 1).double(), inside.double().cumsum(1)], dim=1)
    return sums[:, taken]


def _dice(hits: Tensor, sizes: Tensor) -> list[float | None]:
    """Of every class; None where it is neither there nor predicted."""
    pairs = zip(hits.tolist(), sizes.tolist(), strict=True)
    return [2 * hit / size if size else None for hit, size in pairs]


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def numbers_of(record: QualityRecord) -> dict[str, float]:
    """The numbers of a quality by name, NaN where undefined, for summaries over cases."""
    found: dict[str, float | None] = {
        "calibration_error": record.calibration_error,
        "adaptive_error": record.adaptive_error,
        "error_share": record.error_share,
        "dice": record.kept[-1].dice,
    }
    for kind, ranking in record.rankings.items():
        found |= {f"auprc_{kind}": ranking.auprc, f"roc_auc_{kind}": ranking.roc_auc}
    return {name: math.nan if value is None else value for name, value in found.items()}
