"""Whether a unit is a detector of a concept, and why, in words."""

from __future__ import annotations

from voxplain.analyses.pictures import with_interval
from voxplain.concepts.dissection.units import Origin
from voxplain.records.analysis_page import PageVerdict, VerdictStatus
from voxplain.records.dissection import DissectionRecord, PairDissected
from voxplain.viz.words import number

_LEVEL = 0.05
"""Adjusted p up to which agreement is no chance."""


def detector_verdicts(record: DissectionRecord, pair: PairDissected) -> list[PageVerdict]:
    """The verdict on a unit and a concept, then each of the things it depends on.

    Args:
        record: What units detect.
        pair: A unit of the network with a concept.
    """
    if pair.interval is None:  # then nothing is judged, and facts say what is known
        return [_detector(pair)]
    smallest = record.smallest_iou
    modality, random = rival(record, pair, "input"), rival(record, pair, "random")
    return [
        _detector(pair),
        _ahead(
            pair, "size of the agreement", f"the least that counts, {number(smallest)}", smallest
        ),
        _rivaled(pair, "input modalities", "the best modality", modality),
        _rivaled(pair, "network with random weights", "its best unit", random),
        _unrelated(pair),
        _false_discovery(pair),
    ]


def _detector(pair: PairDissected) -> PageVerdict:
    if pair.detector is None:
        text = "scores without intervals, which need 8 held-out patients, call no unit a detector"
        return PageVerdict(topic="detector", status="not measured", text=text)
    low, bar = number(_lower(pair)), with_interval(pair.bar)
    if pair.detector:
        text = f"detects {pair.concept}: the lower end of its IoU, {low}, exceeds {bar}"
        return PageVerdict(topic="detector", status="pass", text=text)
    text = f"not shown to detect {pair.concept}: "
    if pair.bar is not None and _lower(pair) <= pair.bar:
        text += f"the lower end of its IoU, {low}, does not exceed {bar}"
    else:
        text += "as good an agreement comes by chance too often"
    return PageVerdict(topic="detector", status="fail", text=text)


def rival(record: DissectionRecord, pair: PairDissected, origin: Origin) -> PairDissected | None:
    """The unit of another origin that agrees most with the concept on the held-out cases."""
    others = [
        each
        for each in record.pairs
        if (each.origin, each.concept) == (origin, pair.concept) and each.iou is not None
    ]
    return max(others, key=lambda each: each.iou or 0.0, default=None)


def _rivaled(
    pair: PairDissected, topic: str, what: str, other: PairDissected | None
) -> PageVerdict:
    if other is None or other.iou is None:
        return PageVerdict(topic=topic, status="not measured", text="not compared")
    return _ahead(pair, topic, f"{what}, {other.unit}: {number(other.iou)}", other.iou)


def _unrelated(pair: PairDissected) -> PageVerdict:
    topic = "unrelated masks"
    if pair.null is None:
        return PageVerdict(topic=topic, status="not measured", text="too few cases to exchange")
    return _ahead(pair, topic, f"95 % of masks of other places, {number(pair.null)}", pair.null)


def _false_discovery(pair: PairDissected) -> PageVerdict:
    topic = "false discoveries"
    if pair.p_adjusted is None:
        return PageVerdict(topic=topic, status="not measured", text="no p without unrelated masks")
    status: VerdictStatus = "pass" if pair.p_adjusted <= _LEVEL else "fail"
    text = f"p {number(pair.p_adjusted)} after correction for all units and concepts"
    return PageVerdict(topic=topic, status=status, text=f"{text}; at most {_LEVEL} counts")


def _ahead(pair: PairDissected, topic: str, what: str, height: float) -> PageVerdict:
    """Whether the lower end of the interval exceeds something."""
    low = _lower(pair)
    words = "above" if low > height else "not above"
    status: VerdictStatus = "pass" if low > height else "fail"
    return PageVerdict(
        topic=topic, status=status, text=f"lower end {number(low)} is {words} {what}"
    )


def _lower(pair: PairDissected) -> float:
    """The lower end of the interval; 0 without one."""
    return 0.0 if pair.interval is None else pair.interval[0]
