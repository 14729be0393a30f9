"""The section of the page on how far maps can be trusted, from the scores of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from voxplain.records.cascades import RandomizationRecord, read_pictures, read_randomizations
from voxplain.records.names import safe
from voxplain.records.scores import Score, Scores
from voxplain.report.kept_figures import KeptFigures
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.report.trust.by_correctness import ByCorrectness, by_correctness
from voxplain.report.trust.calibration import reliability_diagram
from voxplain.report.trust.cascade_plots import score_panels, similarity_panels
from voxplain.report.trust.cascade_strip import alternative_text, strip_key, strip_picture
from voxplain.report.trust.curve_plots import curve_panels
from voxplain.report.trust.plot_frame import Multiples
from voxplain.report.trust.score_index import MetricScores, map_label, score_indexes
from voxplain.report.trust.strip_plots import Strip, strip_plot
from voxplain.report.trust.tables import FAMILIES, Table, families, tables
from voxplain.report.trust.verdict import TOPICS, Status, Verdict, verdicts
from voxplain.statistics import FEWEST
from voxplain.viz.words import sentence, title

TABLE = "metrics.parquet"

MOST = 3
"""Cascades that the page draws; sentences and tables include all of them."""

_WHOLE_NETWORK = (
    "The weights of the network are randomized stage by stage, from the {}. A map that shows what "
    "was learned changes; a map that stays the same would look like this for any network."
)
_ORDERS = {
    "top_down": _WHOLE_NETWORK.format("output down"),
    "bottom_up": _WHOLE_NETWORK.format("input up"),
    "independent": "The weights of one stage at a time are randomized, and the others stay as "
    "trained. A map that stays the same does not depend on what that stage learned.",
}
_SIGNS: dict[Status, tuple[str, str]] = {
    "good": ("✓", "holds"),
    "mixed": ("~", "in part"),
    "bad": ("✕", "fails"),
    "open": ("?", "not settled"),
}


@dataclass(frozen=True)
class Answer:
    """The answer to one question about one map.

    Attributes:
        topic: The question.
        status: Of the answer, or ``none`` where nothing was measured.
        sign: The status as a sign.
        word: The status in a word.
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
        heading: The question that it answers.
        tables: Means over the cases.
        strips: A plot of all cases for every metric.
        curves: The curves whose areas or means the scores are.
        by_correctness: Means over right and over wrong predictions; None where there are not both.
    """

    heading: str
    tables: list[Table]
    strips: list[Strip]
    curves: list[Multiples]
    by_correctness: ByCorrectness | None


@dataclass(frozen=True)
class CascadeView:
    """One cascade of randomization.

    Attributes:
        case: The case of its maps.
        order: The order of randomization and what it tells, in words.
        stages: The layers that each step randomizes.
        figure: The maps at every step as a data URI; empty without pictures.
        file: The lossless file of the figure.
        alt: What the figure shows, in words.
        similarities: With the map of the trained network, at every step.
        scores: Of metrics, at every step; None without metrics.
        chance: Whether random networks were compared with one another.
    """

    case: str
    order: str
    stages: list[str]
    figure: str
    file: str
    alt: str
    similarities: Multiples
    scores: Multiples | None
    chance: bool


@dataclass(frozen=True)
class TrustView:
    """One target of one network.

    Attributes:
        model: The network.
        target: What was explained.
        cases: How many images were scored.
        patients: How many patients they are of.
        few: Whether these are too few for intervals.
        answers: To all questions, by the name of the map.
        chapters: The families of metrics.
        cascades: Those of the first cases.
        more_cascades: How many there are beyond these.
    """

    model: str
    target: str
    cases: int
    patients: int
    few: bool
    answers: list[tuple[str, list[Answer]]]
    chapters: list[Chapter]
    cascades: list[CascadeView]
    more_cascades: int


def build_trust(
    run: Path, figures: KeptFigures, *, share: bool
) -> tuple[list[TrustView], list[Problem]]:
    """The scores and cascades of a run as the page shows them.

    Args:
        run: The run directory.
        figures: Of the run.
        share: Leave all pictures out.

    Returns:
        One view per network and target with scores or cascades, and the files that could not be
        read.
    """
    problems: list[Problem] = []
    scores, cascades = _scores(run, problems), _cascades(run, problems)
    views = [
        TrustView(
            index.model,
            index.target,
            index.cases,
            index.patients,
            index.patients < FEWEST,
            [(map_label(verdict.method), list(_answers(verdict))) for verdict in verdicts(index)],
            [_chapter(name, metrics) for name, metrics in families(index)],
            [
                _cascade(run, record, None if share else figures, problems)
                for record in index.cascades[:MOST]
            ],
            max(0, len(index.cascades) - MOST),
        )
        for index in score_indexes(scores, cascades)
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
        problems.append(Problem("the randomizations", reason(error)))
        return []


def _answers(verdict: Verdict) -> Iterator[Answer]:
    for topic in TOPICS:
        statements = [statement for statement in verdict.statements if statement.topic == topic]
        for statement in statements:
            sign, word = _SIGNS[statement.status]
            yield Answer(topic, statement.status, sign, word, sentence(statement.text) + ".")
        if not statements:
            yield Answer(topic, "none", "–", "not measured", "")


def _chapter(name: str, metrics: list[MetricScores]) -> Chapter:
    plot_curves = reliability_diagram if name == "calibration" else curve_panels
    return Chapter(
        FAMILIES.get(name, title(name)),
        tables(metrics),
        [strip for strip in map(strip_plot, metrics) if strip is not None],
        [curves for curves in map(plot_curves, metrics) if curves is not None],
        by_correctness(metrics) if name == "localization" else None,
    )


def _cascade(
    run: Path, record: RandomizationRecord, figures: KeptFigures | None, problems: list[Problem]
) -> CascadeView:
    figure = "" if figures is None else _strip(run, record, figures, problems)
    return CascadeView(
        record.case,
        _ORDERS[record.order],
        [", ".join(paths) for paths in record.stages[1:]],
        figure,
        _strip_file(record) if figure else "",
        alternative_text(record),
        similarity_panels(record),
        score_panels(record),
        record.order != "independent",
    )


def _strip(
    run: Path, record: RandomizationRecord, figures: KeptFigures, problems: list[Problem]
) -> str:
    """The figure of a cascade as a data URI; empty without pictures."""
    try:
        pictures = read_pictures(run, record)
    except (*UNREADABLE, BadZipFile) as error:
        problems.append(Problem("the pictures of a randomization", reason(error)))
        return ""
    if not any(randomized.method in pictures for randomized in record.maps):
        return ""
    key = strip_key(record, pictures)
    return figures.uri(_strip_file(record), key, lambda: strip_picture(record, pictures))


def _strip_file(record: RandomizationRecord) -> str:
    names = (record.case, record.model, record.target, record.order)
    return f"figures/randomization_{'_'.join(map(safe, names))}.png"
