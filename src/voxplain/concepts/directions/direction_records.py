"""Records of directions: of concepts, by the number of units; and of those found without."""

from __future__ import annotations

import math

from voxplain.concepts.finding import Finding


class UnitCountRecord(Finding):
    """How well some units together agree with a concept.

    Attributes:
        units: How many.
        channels: Which.
        threshold: Of the reading, chosen on the selection cases.
        selection_iou: There.
        iou: On the held-out cases.
        interval: 95 % bootstrap interval of it over patients; None below 8 patients.
        by_case: IoU of each held-out case; NaN where both masks are empty.
    """

    units: int
    channels: tuple[int, ...]
    threshold: float
    selection_iou: float
    iou: float
    interval: tuple[float, float] | None
    by_case: dict[str, float]


class ConceptDirectionRecord(Finding):
    """The direction of a concept in a layer, and how many units it takes.

    Attributes:
        concept: Its name.
        layer: Path of the layer.
        curve: Single unit, several, all units; of one network and concept.
        controls: The same under the name of a control.
        selection: Ids of the cases that it was found on.
        held_out: Ids of the cases that it was scored on.
        remarks: Sentences for the reader.
    """

    concept: str
    layer: str
    curve: tuple[UnitCountRecord, ...]
    controls: dict[str, tuple[UnitCountRecord, ...]]
    selection: tuple[str, ...]
    held_out: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class FoundDirectionRecord(Finding):
    """What a direction that was found without concepts stands for, on held-out patients.

    Attributes:
        name: Of the direction.
        concept: That it agrees with most on the selection cases; None where it agrees with none.
        iou: With this concept, at a threshold chosen on the selection cases; NaN without one.
        interval: 95 % bootstrap interval of it over patients; None below 8 patients.
        detector: Whether it is a detector by the rule for units; None where there is no interval.
        unit: The single unit of the layer that agrees most with the concept.
        unit_iou: Its IoU.
        share_positive: Share of the cases whose score grows along the direction; NaN where no
            target was asked about.
        mean: Mean directional derivative of the score, per unit of activation.
        p_share: Two-sided p value of the share against random directions.
        p_mean: The same of the mean.
        q_share: The p value adjusted over all directions (Benjamini-Hochberg).
        q_mean: The same of the mean.
        remark: Why numbers are missing; empty where there are all.
    """

    name: str
    concept: str | None = None
    iou: float = math.nan
    interval: tuple[float, float] | None = None
    detector: bool | None = None
    unit: str = ""
    unit_iou: float = math.nan
    share_positive: float = math.nan
    mean: float = math.nan
    p_share: float = math.nan
    p_mean: float = math.nan
    q_share: float = math.nan
    q_mean: float = math.nan
    remark: str = ""
