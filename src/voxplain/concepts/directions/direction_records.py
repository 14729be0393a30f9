"""Records of the directions of concepts: the curve over the number of units, and controls."""

from __future__ import annotations

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
