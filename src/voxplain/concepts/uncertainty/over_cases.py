"""How far an uncertainty can be trusted over the cases of a cohort."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from voxplain.concepts.summaries import summary_record
from voxplain.concepts.uncertainty.entropy import KINDS
from voxplain.concepts.uncertainty.estimate import uncertainty
from voxplain.concepts.uncertainty.quality import ComparedPrediction, numbers_of, quality_of
from voxplain.concepts.uncertainty.reference import Roi
from voxplain.concepts.uncertainty.result import Uncertainty
from voxplain.concepts.uncertainty.sampling import Method
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.truth import average_precision, roc_auc
from voxplain.errors import InputError
from voxplain.models.model import Model
from voxplain.records.uncertainty import (
    CohortUncertaintyRecord,
    QualityRecord,
    SummaryRecord,
    UncertaintyRecord,
)
from voxplain.statistics import Array, bootstrap, summarize
from voxplain.targets.field import Activation

Keep = Callable[[CohortCase, Uncertainty], None]


def uncertainty_over_cases(
    model: Model | nn.Module | Sequence[Model | nn.Module],
    cohort: Cohort,
    method: Method | Sequence[Method] = "augmentation",
    samples: int | None = None,
    seed: int = 0,
    *,
    truth: str = "class",
    label: int | None = None,
    value: int | None = None,
    ignore: int | None = None,
    activation: Activation = "auto",
    threshold: float = 0.5,
    roi: Roi = "foreground",
    keep: Keep | None = None,
) -> CohortUncertaintyRecord:
    """The uncertainty of every case, and how well it finds errors, per case and over cases.

    Segmentations are judged voxel by voxel within each case, and the numbers summed up over cases
    with bootstrap intervals over patients. Classifiers are judged over the cases together.

    Args:
        model: As of :func:`uncertainty`, like all that is not named here.
        cohort: Cases, in memory one at a time; their labels are the reference.
        method: What is sampled.
        samples: How many predictions per case.
        seed: Of the draws.
        truth: The fact of a case that holds the number of its true class, for classifiers.
        label: A class that is asked about.
        value: Its label in the reference.
        ignore: The label of voxels that do not count.
        activation: What makes probabilities of the output.
        threshold: Above which a class is predicted.
        roi: Voxels that count.
        keep: Is given every case with its uncertainty, such as to save the maps.

    Raises:
        InputError: If the cohort is empty.
    """
    records: list[UncertaintyRecord] = []
    scores: list[tuple[str, ComparedPrediction]] = []
    for case in cohort:
        reference = case.labels if case.labels is not None else _truth(case, truth)
        found = uncertainty(
            model, case.image, method, samples, seed, reference, label=label, value=value,
            ignore=ignore, activation=activation, threshold=threshold, roi=roi,
        )  # fmt: skip
        records.append(found.record.model_copy(update={"case": case.id}))
        if found.compared is not None and not found.total.ndim:
            scores.append((case.patient, found.compared))
        if keep is not None:
            keep(case, found)
    if not records:
        raise InputError("the cohort holds no case, so there is no uncertainty to sum up")
    return _together(records, cohort.patients, scores, seed)


def _truth(case: CohortCase, name: str) -> int | None:
    known = case.facts.get(name)
    return None if known is None else int(known)


def _together(
    records: list[UncertaintyRecord],
    patients: Sequence[str],
    scores: Sequence[tuple[str, ComparedPrediction]],
    seed: int,
) -> CohortUncertaintyRecord:
    compared = [record.quality is not None for record in records]
    remarks = []
    if not all(compared) and not scores:
        without = len(records) - sum(compared)
        remarks.append(f"{without} of {len(records)} cases have no reference and are not judged")
    pooled = None if not scores else _pooled([each for _, each in scores])
    return CohortUncertaintyRecord(
        cases=records,
        patients=list(patients),
        summaries=_summaries(records, patients, seed),
        pooled=None if pooled is None else quality_of(pooled),
        intervals={} if pooled is None else _intervals(pooled, [p for p, _ in scores], seed),
        remarks=remarks,
    )


def _summaries(
    records: Sequence[UncertaintyRecord], patients: Sequence[str], seed: int
) -> dict[str, SummaryRecord]:
    """Every number over the cases."""
    rows = [_row(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name, math.nan) for row in rows] for name in names}
    return {
        name: summary_record(summarize(column, patients, seed)) for name, column in columns.items()
    }


def _row(record: UncertaintyRecord) -> dict[str, float]:
    quality: QualityRecord | None = record.quality
    means = {f"mean_{kind}": record.mean[kind] for kind in KINDS}
    return means | ({} if quality is None else numbers_of(quality))


def _pooled(cases: Sequence[ComparedPrediction]) -> ComparedPrediction:
    """The scores of all cases as one."""
    return ComparedPrediction(
        uncertainties={
            kind: torch.stack([case.uncertainties[kind].reshape(()) for case in cases])
            for kind in KINDS
        },
        confidence=torch.cat([case.confidence.flatten() for case in cases]),
        confirmed=torch.cat([case.confirmed.flatten() for case in cases]),
        wrong=torch.cat([case.wrong.reshape(1) for case in cases]),
        predicted=torch.cat([case.predicted.reshape(len(case.predicted), 1) for case in cases], 1),
        true=torch.cat([case.true.reshape(len(case.true), 1) for case in cases], 1),
        names=cases[0].names,
    )


def _intervals(
    pooled: ComparedPrediction, patients: Sequence[str], seed: int
) -> dict[str, tuple[float, float] | None]:
    """Bootstrap intervals over patients of what compares cases with each other."""
    rows, whose = np.arange(len(pooled.wrong), dtype=np.float64), np.asarray(patients)
    if not 0 < float(pooled.wrong.double().mean()) < 1:
        return {}
    found = {}
    for kind, values in pooled.uncertainties.items():
        for name, measure in (("auprc", average_precision), ("roc_auc", roc_auc)):

            def statistic(
                sample: Array,
                values: torch.Tensor = values,
                measure: Callable[[torch.Tensor, torch.Tensor], float] = measure,
            ) -> float:
                chosen = torch.from_numpy(sample).long()
                wrong = pooled.wrong.cpu()[chosen]
                if not 0 < float(wrong.double().mean()) < 1:
                    return 0.5  # a resample without both tells nothing
                return measure(values.cpu()[chosen], wrong)

            found[f"{name}_{kind}"] = bootstrap(rows, whose, statistic, seed=seed, resamples=500)
    return found
