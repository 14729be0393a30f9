"""Interventions as files of a run."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.concepts.interventions.ablation import Ablation
from voxplain.concepts.interventions.region_swap import SwapEffect
from voxplain.concepts.links.record import defined
from voxplain.records.record import Record
from voxplain.statistics import Summary


class EffectRecord(Record):
    """A change over cases.

    Attributes:
        mean: Mean over cases; None where no case has a value.
        median: Likewise.
        interval: 95 % bootstrap interval of the mean; None below 8 patients.
        cases: Cases with a value.
        patients: Their patients.
    """

    mean: float | None
    median: float | None
    interval: tuple[float, float] | None
    cases: int
    patients: int


class AblationRecord(Record):
    """What one class loses without one concept; see :class:`Ablation`."""

    node: str
    output: str
    measure: str
    drop: EffectRecord
    clean: float | None
    null: float | None
    null_high: float | None
    p: float | None
    q: float | None
    significant: bool


class SwapRecord(Record):
    """What one class loses by a change of the image; see :class:`SwapEffect`."""

    kind: str
    source: str
    target: str
    dice: EffectRecord
    logit: EffectRecord


class InterventionsRecord(Record):
    """All interventions of an analysis.

    Attributes:
        ablations: Of units.
        swaps: Of image regions.
    """

    schema_version: int = 1
    ablations: list[AblationRecord]
    swaps: list[SwapRecord]


def interventions_record(
    ablations: Sequence[Ablation] = (), swaps: Sequence[SwapEffect] = ()
) -> InterventionsRecord:
    """What is kept of interventions."""
    return InterventionsRecord(
        ablations=[_ablation(each) for each in ablations],
        swaps=[
            SwapRecord(
                kind=each.kind,
                source=each.source,
                target=each.target,
                dice=_effect(each.dice),
                logit=_effect(each.logit),
            )
            for each in swaps
        ],
    )


def _ablation(each: Ablation) -> AblationRecord:
    return AblationRecord(
        node=each.node,
        output=each.output,
        measure=each.measure,
        drop=_effect(each.drop),
        clean=defined(each.clean),
        null=defined(each.null),
        null_high=defined(each.null_high),
        p=defined(each.p),
        q=defined(each.q),
        significant=each.significant,
    )


def _effect(summary: Summary) -> EffectRecord:
    return EffectRecord(
        mean=defined(summary.mean),
        median=defined(summary.median),
        interval=summary.interval,
        cases=summary.count,
        patients=summary.patients,
    )
