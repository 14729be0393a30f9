"""What is written of the uncertainty of a prediction, and of how good it is."""

from __future__ import annotations

from voxplain.records.record import Record


class VolumeRecord(Record):
    """The volume of a predicted class over the samples.

    ``low`` and ``high`` hold 95 % of the samples between them; they say how far the network varies,
    and not how far it is from the truth. ``predicted`` is the volume where the mean probability
    predicts the class.
    """

    label: int
    name: str
    unit: str
    predicted: float
    mean: float
    deviation: float
    low: float
    high: float
    samples: int


class KeptRecord(Record):
    """The prediction on the voxels whose uncertainty is at most a threshold.

    ``share`` of all voxels is kept. ``by_class`` is the Dice of each class, None where it is
    neither there nor predicted among them; ``dice`` the mean over the others, so that it may jump
    where a small class comes in; ``accuracy`` the share that is right.
    """

    threshold: float
    share: float
    dice: float | None = None
    by_class: dict[str, float | None] = {}
    accuracy: float | None = None


class RankingRecord(Record):
    """How well an uncertainty ranks what is wrong above what is right; None where undefined.

    ``chance`` is what ``auprc`` is for a random ranking: the share of errors.
    """

    auprc: float | None = None
    roc_auc: float | None = None
    chance: float


class QualityRecord(Record):
    """How far an uncertainty can be trusted, against a reference.

    ``calibration_error`` has bins of equal width, ``adaptive_error`` of equal mass, both of the
    mean probability; ``rankings`` are by the kind of uncertainty.
    """

    voxels: int
    error_share: float
    calibration_error: float
    adaptive_error: float
    rankings: dict[str, RankingRecord]
    kept: list[KeptRecord]
    remarks: list[str] = []


class UncertaintyRecord(Record):
    """The uncertainty of a prediction for one image.

    ``mean`` holds the mean over the image of each kind of uncertainty (nats), ``in_object`` its
    mean where an object is predicted, None where there is none. ``seen`` is the share of voxels
    that every sample shows.
    """

    case: str = ""
    method: str
    parameters: dict[str, float | str | bool | list[int] | None]
    samples: int
    seed: int
    model: str
    label: int | None = None
    classes: list[str]
    probabilities: list[float] | None = None
    mean: dict[str, float]
    in_object: dict[str, float] | None = None
    seen: float = 1.0
    volumes: list[VolumeRecord] = []
    quality: QualityRecord | None = None
    files: dict[str, str] = {}
    remarks: list[str] = []


class SummaryRecord(Record):
    """A number over cases: its mean, median, quartiles and 95 % interval of the mean.

    The interval is None below 8 patients.
    """

    mean: float | None
    median: float | None
    quartiles: tuple[float, float] | None
    interval: tuple[float, float] | None
    count: int
    undefined: int
    patients: int


class CohortUncertaintyRecord(Record):
    """The quality of an uncertainty over cases, by the name of the number.

    For classifiers ``pooled`` compares cases with each other, with bootstrap intervals over
    patients.
    """

    cases: list[UncertaintyRecord]
    patients: list[str]
    summaries: dict[str, SummaryRecord]
    pooled: QualityRecord | None = None
    intervals: dict[str, tuple[float, float] | None] = {}
    remarks: list[str] = []
