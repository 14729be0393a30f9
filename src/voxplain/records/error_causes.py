"""What is written of the causes of errors of a segmentation, and of corrections."""

from __future__ import annotations

from typing import Literal

from voxplain.records.record import Record
from voxplain.records.uncertainty import SummaryRecord

CauseKind = Literal["structure", "modality", "unit", "units"]
NullKind = Literal["places", "regions", "sets"]
"""The same change at the error moved elsewhere; random regions of the same shape; random sets."""


class ErrorEffectRecord(Record):
    """What the replacement of one thing does to one error.

    ``drop`` is how far the score of the error falls (mean log-odds toward the error), ``removed``
    the share of its voxels that are right afterwards, ``removed_volume`` the same in the unit of
    the error, ``dice_change`` that of the whole case. ``p`` is the share of the null (``null``,
    ``draws`` of them) with at least this drop, ``q`` is adjusted over
    the causes of the same kind.
    """

    cause: str
    kind: CauseKind
    layer: str = ""
    channels: list[int] = []
    drop: float
    removed: float
    removed_volume: float
    dice_change: float | None
    null: NullKind
    draws: int = 0
    p: float | None = None
    q: float | None = None


class TogetherRecord(Record):
    """How many of the strongest units of a layer remove half of an error, where no one does.

    ``count`` is None where no number of them does, and ``tried`` is then the number that removes
    most; ``random_removed`` is what random sets of
    the same size remove on average, ``p`` the share of them that remove as much.
    """

    layer: str
    count: int | None
    tried: int
    channels: list[int]
    removed: float
    random_removed: float | None = None
    draws: int = 0
    p: float | None = None


class ErrorRecord(Record):
    """One connected false positive or false negative, and what carries it.

    ``score`` is the mean log-odds toward the error; ``alone`` names what is enough to remove half
    of it, significantly; ``units_alone`` whether a single unit is among them.
    """

    id: str
    case: str
    patient: str
    error: Literal["fp", "fn"]
    number: int
    volume: float
    unit: str
    positions: int
    score: float
    effects: list[ErrorEffectRecord]
    alone: list[str]
    units_alone: bool
    together: list[TogetherRecord] = []
    sentence: str
    remarks: list[str] = []


class ErrorGroupRecord(Record):
    """Errors with the same cause: the cosine similarity of their effects is high.

    ``similarity`` is the mean over pairs, ``causes`` what has the largest mean effect.
    """

    members: list[str]
    similarity: float | None
    causes: list[str]


class OwnEffectRecord(Record):
    """What a correction does to the error it was made for."""

    error: str
    drop: float
    removed: float
    removed_volume: float


class HalfRecord(Record):
    """What a correction does to one half of the patients.

    ``dice_change`` is after minus before per case, ``p`` that of the signed-rank test over
    patients; volumes are sums over the cases, in the unit of the errors.
    """

    patients: int
    dice_change: SummaryRecord
    p: float | None = None
    worse_cases: int
    fp_before: float
    fp_after: float
    fn_before: float
    fn_after: float


class CorrectionRecord(Record):
    """A change of the network or its input that is meant to remove an error.

    ``factor`` is what is left of the deviation of units from their replacement, 0 for an ablation.
    """

    name: str
    kind: CauseKind
    layer: str = ""
    channels: list[int] = []
    factor: float = 0.0
    own: OwnEffectRecord
    selection: HalfRecord
    held_out: HalfRecord | None
    chosen: bool = False
    verdict: Literal["helps", "harms", "not settled"]
    sentence: str


class ErrorCausesRecord(Record):
    """The errors of a network over a cohort, their causes, and what corrects them."""

    model: str
    label: int
    class_name: str
    layers: list[str]
    parameters: dict[str, float | int | str | list[str] | list[float] | None]
    errors: list[ErrorRecord]
    groups: list[ErrorGroupRecord]
    alike: float
    corrections: list[CorrectionRecord]
    selection_patients: list[str]
    held_out_patients: list[str]
    sentences: list[str]
    remarks: list[str] = []
