"""Records of dissections: what units detect, as JSON and as one table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.records.record import Record

FOLDER = "dissection"


class Exemplar(Record, frozen=True):
    """A case in which a unit is most or least active.

    Attributes:
        case: Its id.
        value: Highest activation in the region of interest.
        voxel: Where.
    """

    case: str
    value: float
    voxel: tuple[int, ...]


class ConceptDissected(Record, frozen=True):
    """A concept as it was used.

    Attributes:
        name: Of the concept.
        kind: A part of an image, or what holds for the whole of it.
        status: Whether there is a ground truth.
        provenance: Where it comes from.
        group: Concepts of one source.
        share: Of the region of interest of the held-out cases, or of these cases.
        cases: Held-out cases for which it is known.
        present: Held-out cases in which there is any of it.
        remark: Why there are no scores; empty where there are.
    """

    name: str
    kind: Literal["mask", "image"]
    status: Literal["explicit", "derived", "implicit"]
    provenance: str
    group: str
    share: float | None = None
    cases: int = 0
    present: int = 0
    remark: str = ""


class UnitDissected(Record, frozen=True):
    """A unit as it was found.

    Attributes:
        name: Layer and number; sign and name of a modality.
        origin: The network, the image, or a network with random weights.
        layer: Path of the layer; empty for modalities.
        index: Number among the units of the layer.
        remark: Why there are no scores; empty where there are.
        top: Cases in which it is most active, the first one most of all.
        bottom: Cases in which it is least active.
    """

    name: str
    origin: Literal["layer", "input", "random"]
    layer: str
    index: int
    remark: str = ""
    top: tuple[Exemplar, ...] = ()
    bottom: tuple[Exemplar, ...] = ()


class PairDissected(Record, frozen=True):
    """Agreement of one unit with one concept on held-out cases; None where it is undefined.

    Attributes:
        unit: Name of the unit.
        origin: As in :class:`UnitDissected`.
        concept: Name of the concept.
        threshold: Activation from which on the unit counts as on, chosen on other patients.
        on: Share of the region of interest in which the unit is on.
        iou: Intersection over union of all held-out cases together.
        interval: 95 % bootstrap interval of it over patients; None below 8 patients.
        dice: Of all held-out cases together.
        precision: Share of where the unit is on that lies in the concept.
        recall: Share of the concept in which the unit is on.
        average_precision: Area under precision and recall over all thresholds.
        auc: Area under the ROC curve over all thresholds.
        information: Mutual information in bits.
        case_median: Median over cases of the IoU in each.
        case_quartiles: First and third quartile of the same.
        selection_iou: On the cases on which the threshold was chosen.
        chance: IoU with a random mask of equal frequency, q pi / (q + pi - q pi).
        null: 95th percentile of the IoU with masks of other patients, or with shifted ones.
        p: Share of unrelated masks, with any unit of the same origin, that reach the IoU.
        p_adjusted: The same after Benjamini and Hochberg over all units and concepts.
        bar: What the lower end of the interval must exceed.
        detector: Whether it does, at a p of at most 5 %; None where there is no interval.
    """

    unit: str
    origin: Literal["layer", "input", "random"]
    concept: str
    threshold: float | None = None
    on: float | None = None
    iou: float | None = None
    interval: tuple[float, float] | None = None
    dice: float | None = None
    precision: float | None = None
    recall: float | None = None
    average_precision: float | None = None
    auc: float | None = None
    information: float | None = None
    case_median: float | None = None
    case_quartiles: tuple[float, float] | None = None
    selection_iou: float | None = None
    chance: float | None = None
    null: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    bar: float | None = None
    detector: bool | None = None


class ImagePairDissected(Record, frozen=True):
    """How well the activation of a unit tells images with a concept from the others.

    Attributes:
        unit: Name of the unit.
        origin: As in :class:`UnitDissected`.
        concept: Name of the concept.
        pooling: Mean or maximum over the image, whichever told more on the selection cases.
        auc: P(A+ > A-) on held-out cases, ties being a half.
        interval: 95 % bootstrap interval over patients, for the best unit of a concept.
        average_precision: Area under precision and recall.
        p: Mann-Whitney, two-sided; cases of one patient count as one by their mean.
        p_adjusted: The same after Benjamini and Hochberg over all units and concepts.
        selection_auc: On the selection cases.
    """

    unit: str
    origin: Literal["layer", "input", "random"]
    concept: str
    pooling: Literal["mean", "max"]
    auc: float | None = None
    interval: tuple[float, float] | None = None
    average_precision: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    selection_auc: float | None = None


class DissectionRecord(Record, frozen=True):
    """A dissection of one network.

    Attributes:
        model: Name of the network.
        threshold: By which rule thresholds were chosen.
        quantile: For ``fixed_quantile``.
        region: Where units and concepts are compared.
        smallest_iou: What a detector must exceed in any case.
        selection: Ids of the cases on which thresholds were chosen.
        held_out: Ids of the cases that scores are of.
        patients: Number of held-out patients.
        concepts: In the order of the bank.
        units: Of the network, then modalities, then those of a random network.
        pairs: Every unit with every concept that is a part of an image.
        images: Every unit with every concept that holds for whole images.
        remarks: What a reader should know.
    """

    schema_version: int = 1
    model: str
    threshold: Literal["max_iou", "fixed_quantile", "max_information"]
    quantile: float
    region: str
    smallest_iou: float
    selection: tuple[str, ...]
    held_out: tuple[str, ...]
    patients: int
    concepts: tuple[ConceptDissected, ...]
    units: tuple[UnitDissected, ...]
    pairs: tuple[PairDissected, ...]
    images: tuple[ImagePairDissected, ...] = ()
    remarks: tuple[str, ...] = ()


class SliceBest(Record, frozen=True):
    """The unit that agrees most with a concept in one slice, chosen on this very slice.

    Attributes:
        case: Id of the case.
        slice: Number of the slice; None for a 2-D image.
        concept: Name of the concept.
        voxels: Of the concept in the slice.
        unit: Name of the unit.
        quantile: Share of the region in the slice in which the unit is on.
        iou: Intersection over union in the slice.
    """

    case: str
    slice: int | None
    concept: str
    voxels: int
    unit: str
    quantile: float
    iou: float


class ToleranceScore(Record, frozen=True):
    """Agreement of the best unit of a concept up to a distance, on held-out cases.

    Attributes:
        unit: Name of the unit.
        concept: Name of the concept.
        tolerance: The distance, in voxels or such as ``2mm``.
        precision: Share of where the unit is on that lies no farther from the concept.
        recall: Share of the concept that lies no farther from where the unit is on.
        f1: Harmonic mean of both.
        precision_interval: 95 % bootstrap interval over patients; None below 8 patients.
        recall_interval: The same of the recall.
    """

    unit: str
    concept: str
    tolerance: int | str
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    precision_interval: tuple[float, float] | None = None
    recall_interval: tuple[float, float] | None = None


def write_dissection(run: Path, record: DissectionRecord) -> Path:
    """Writes ``dissection/<model>.units.json``.

    Args:
        run: The run directory.
        record: What was found.
    """
    path = Path(run) / FOLDER / f"{safe(record.model)}.units.json"
    return atomic_write(path, record.model_dump_json(indent=1))


def read_dissections(run: Path) -> list[DissectionRecord]:
    """All dissections of a run, sorted by file name."""
    files = sorted((Path(run) / FOLDER).glob("*.units.json"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return [DissectionRecord.model_validate_json(text) for text in texts]


def pair_rows(pairs: Sequence[PairDissected]) -> list[dict[str, Any]]:
    """One flat mapping per pair; intervals and quartiles become two columns."""
    return [_flat(pair.model_dump()) for pair in pairs]


def write_pairs(path: Path, pairs: Sequence[PairDissected]) -> Path:
    """Writes the pairs as a table, ``.csv`` or else Parquet; it appears whole or not at all."""
    rows = pair_rows(pairs)
    names = list(_flat(PairDissected(unit="", origin="layer", concept="").model_dump()))
    if path.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        return atomic_write(path, text.getvalue())
    import pyarrow
    from pyarrow import parquet

    buffer = pyarrow.BufferOutputStream()
    columns = {name: _column(name, [row[name] for row in rows]) for name in names}
    parquet.write_table(pyarrow.table(columns), buffer)
    return atomic_write(path, buffer.getvalue().to_pybytes())


def _flat(pair: dict[str, Any]) -> dict[str, Any]:
    row = dict(pair)
    row["low"], row["high"] = row.pop("interval") or (None, None)
    row["case_q1"], row["case_q3"] = row.pop("case_quartiles") or (None, None)
    return row


def _column(name: str, values: list[Any]) -> Any:
    import pyarrow

    if name in ("unit", "origin", "concept"):
        return pyarrow.array(values, pyarrow.string())
    kind = pyarrow.bool_() if name == "detector" else pyarrow.float64()
    return pyarrow.array(values, kind)
