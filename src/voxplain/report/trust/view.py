"""The page's part on how far maps can be trusted, from what a run has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from voxplain.records.cascades import RandomizationRecord, read_pictures, read_randomizations
from voxplain.records.names import safe
from voxplain.records.scores import Score, Scores
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.report.trust.cascade_plots import score_panels, similarity_panels
from voxplain.report.trust.cascade_strip import alternative, cascade_strip, label
from voxplain.report.trust.curve_plots import curve_panels
from voxplain.report.trust.plot_frame import Multiples
from voxplain.report.trust.reliability import reliability
from voxplain.report.trust.score_index import MetricScores, ScoreIndex, score_indexes
from voxplain.report.trust.strata import ByCorrectness, by_correctness
from voxplain.report.trust.strip_plots import Strip, strip_plot
from voxplain.report.trust.tables import FAMILIES, Table, families, tables
from voxplain.report.trust.verdict import TOPICS, Status, Verdict, verdicts
from voxplain.statistics import FEWEST
from voxplain.viz.embed import figure_uri
from voxplain.viz.figures import png
from voxplain.viz.words import sentence, title

TABLE = "metrics.parquet"

MOST = 3
"""Cascades that the page draws; sentences and tables stand for all."""

_WHOLE = (
    "The network forgets what it learned, from the {}. A map of what was learned becomes another "
    "one; a map that stays would look the same for any network."
)
_ORDERS = {
    "top_down": _WHOLE.format("output down"),
    "bottom_up": _WHOLE.format("input up"),
    "independent": "One stage at a time forgets what it learned, and the others keep it. A map "
    "that stays does not need what that stage has learned.",
}
_SIGNS: dict[Status, tuple[str, str]] = {
    "good": ("✓", "holds"),
    "mixed": ("~", "in part"),
    "bad": ("✕", "fails"),
    "open": ("?", "not settled"),
}


@dataclass(frozen=True)
class Answer:
    """One of the questions of the trust panel, for one map.

    Attributes:
        topic: The question.
        status: Of the answer, or ``none`` where it was not measured.
        sign: The same as a sign.
        word: The same in a word.
        text: The answer with its number.
    """

    topic: str
    status: str
    sign: str
    word: str
    text: str


@dataclass(frozen=True)
class Chapter:
    """One family of metrics.

    Attributes:
        heading: Its question.
        tables: Numbers.
        strips: Every case.
        curves: What numbers are areas or means of.
        strata: Means over right and over wrong predictions; None where that is not told apart.
    """

    heading: str
    tables: list[Table]
    strips: list[Strip]
    curves: list[Multiples]
    by_correctness: ByCorrectness | None


@dataclass(frozen=True)
class CascadeView:
    """One cascade.

    Attributes:
        case: Whose maps they are.
        order: Which stages were randomized first, and what it tells, in words.
        stages: The layers of each step.
        figure: The strip as a data URI; empty without pictures.
        file: Its lossless file.
        alt: What it shows, in words.
        curves: Similarities.
        scores: Of metrics at every step; None where none was asked.
        chance: Whether random networks were compared with one another.
    """

    case: str
    order: str
    stages: list[str]
    figure: str
    file: str
    alt: str
    curves: Multiples
    scores: Multiples | None
    chance: bool


@dataclass(frozen=True)
class TrustView:
    """One target of one network.

    Attributes:
        model: The network.
        target: What was explained.
        cases: How many images were judged.
        patients: Whose they are.
        few: Whether these are too few for intervals.
        panel: Per map its answers, to all questions.
        chapters: Metrics.
        cascades: Randomizations, those of the first cases.
        others: How many more there are.
    """

    model: str
    target: str
    cases: int
    patients: int
    few: bool
    panel: list[tuple[str, list[Answer]]]
    chapters: list[Chapter]
    cascades: list[CascadeView]
    others: int


def build_trust(run: Path, *, share: bool) -> tuple[list[TrustView], list[Problem]]:
    """What a run has measured of its maps, ready for the page.

    Args:
        run: The run directory.
        share: Leave all pictures out.

    Returns:
        One view per network and target, none where nothing was measured; and what could not be
        read.
    """
    problems: list[Problem] = []
    scores, cascades = _scores(run, problems), _cascades(run, problems)
    views = [
        TrustView(
            ledger.model,
            ledger.target,
            ledger.cases,
            ledger.patients,
            ledger.patients < FEWEST,
            _panel(ledger),
            [_chapter(name, asked) for name, asked in families(ledger)],
            [_view(run, record, share, problems) for record in ledger.cascades[:MOST]],
            max(0, len(ledger.cascades) - MOST),
        )
        for ledger in score_indexes(scores, cascades)
    ]
    return views, problems


def _scores(run: Path, problems: list[Problem]) -> list[Score]:
    file = run / TABLE
    if not file.exists():
        return []
    try:
        return list(Scores.read(file))
    except (*UNREADABLE, TypeError) as error:
        problems.append(Problem("the table of scores", reason(error)))
        return []


def _cascades(run: Path, problems: list[Problem]) -> list[RandomizationRecord]:
    try:
        return read_randomizations(run)
    except UNREADABLE as error:
        problems.append(Problem("what randomization did to the maps", reason(error)))
        return []


def _panel(ledger: ScoreIndex) -> list[tuple[str, list[Answer]]]:
    return [
        (label(verdict.method), [part for topic in TOPICS for part in _answers(topic, verdict)])
        for verdict in verdicts(ledger)
    ]


def _answers(topic: str, verdict: Verdict) -> Iterator[Answer]:
    found = [statement for statement in verdict.statements if statement.topic == topic]
    for statement in found:
        sign, word = _SIGNS[statement.status]
        yield Answer(topic, statement.status, sign, word, sentence(statement.text) + ".")
    if not found:
        yield Answer(topic, "none", "–", "not measured", "")


def _chapter(name: str, asked: list[MetricScores]) -> Chapter:
    strips = (strip_plot(part) for part in asked)
    draw = reliability if name == "calibration" else curve_panels
    curves = (draw(part) for part in asked)
    return Chapter(
        FAMILIES.get(name, title(name)),
        tables(asked),
        [part for part in strips if part is not None],
        [part for part in curves if part is not None],
        by_correctness(asked) if name == "localization" else None,
    )


def _view(
    run: Path, record: RandomizationRecord, share: bool, problems: list[Problem]
) -> CascadeView:
    figure, file = "" if share else _strip(run, record, problems), ""
    if figure:
        file = _strip_file(record)
    return CascadeView(
        record.case,
        _ORDERS[record.order],
        [", ".join(paths) for paths in record.stages[1:]],
        figure,
        file,
        alternative(record),
        similarity_panels(record),
        score_panels(record),
        record.order != "independent",
    )


def _strip(run: Path, record: RandomizationRecord, problems: list[Problem]) -> str:
    """The strip as a data URI, its lossless file written; empty where there are no pictures."""
    try:
        pictures = read_pictures(run, record)
    except (*UNREADABLE, BadZipFile) as error:
        problems.append(Problem("the pictures of a randomization", reason(error)))
        return ""
    if not any(map.method in pictures for map in record.maps):
        return ""
    drawn = png(cascade_strip(record, pictures))
    (run / "figures").mkdir(exist_ok=True)
    (run / _strip_file(record)).write_bytes(drawn)
    return figure_uri(drawn)


def _strip_file(record: RandomizationRecord) -> str:
    parts = (record.case, record.model, record.target, record.order)
    return f"figures/randomization_{'_'.join(safe(part) for part in parts)}.png"
