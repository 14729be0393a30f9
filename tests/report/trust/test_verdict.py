"""Verdicts on maps with known scores: statements, their numbers, and no claims from few cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_scores import (
    CONTROLS,
    METHODS,
    cascade,
    columns,
    randomization_scores,
    rows,
    score_table,
    with_metric,
)

from voxplain.records.scores import Score
from voxplain.report.trust.score_index import ScoreIndex, score_indexes
from voxplain.report.trust.verdict import (
    DISSIMILAR,
    LOCALIZATION,
    REMOVAL,
    SIMILAR,
    STEADINESS,
    TOPICS,
    WEIGHTS,
    Statement,
    verdicts,
)

LEVELS = {"random": 0.5, "edges": 0.74, "intensity": 0.6, "center": 0.7, "reference": 1.0}


def score_index(scores: Sequence[Score]) -> ScoreIndex:
    (index,) = score_indexes(scores)
    return index


def statement_on(scores: Sequence[Score], method: str, topic: str) -> Statement:
    (verdict,) = [each for each in verdicts(score_index(scores)) if each.method == method]
    (statement,) = [each for each in verdict.statements if each.topic == topic]
    return statement


def localization(auc: float, count: int = 12, **levels: float) -> Statement:
    centers = {"saliency": auc, **LEVELS, **levels}
    scores = rows("roc_auc", columns(centers, count, 0.01), family="localization")
    return statement_on(scores, "saliency", LOCALIZATION)


def test_a_map_that_stays_similar_fails() -> None:
    statement = statement_on(
        randomization_scores({"guided_backprop": 0.93}, 12), "guided_backprop", WEIGHTS
    )
    assert statement.status == "bad"
    words = "fails the randomization check: correlation 0.93 with a random network"
    assert statement.text.startswith(words)
    assert "two random networks: 0.01" in statement.text
    assert statement.text.endswith("12 cases")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (0.0, "good"),
        (DISSIMILAR, "good"),
        (-DISSIMILAR, "good"),
        (DISSIMILAR + 0.01, "mixed"),
        (-DISSIMILAR - 0.01, "mixed"),
        (SIMILAR - 0.01, "mixed"),
        (SIMILAR, "bad"),
        (1.0, "bad"),
    ],
)
def test_thresholds_of_randomization(value: float, status: str) -> None:
    scores = randomization_scores({"saliency": value}, 9)
    assert statement_on(scores, "saliency", WEIGHTS).status == status


def test_similar_strengths_are_mentioned_where_the_signed_map_changes() -> None:
    assert (
        "correlation of strengths 0.90"
        in statement_on(randomization_scores({"a": 0.0}, 9), "a", WEIGHTS).text
    )
    assert "strengths" not in statement_on(randomization_scores({"a": 0.9}, 9), "a", WEIGHTS).text


def test_a_map_that_stays_similar_until_the_last_stage_fails() -> None:
    scores = [
        replace(row, facts={"measures": {"spearman": {"mean": 0.7, "last": 0.2}}})
        for row in randomization_scores({"a": 0.0}, 9)
    ]
    statement = statement_on(scores, "a", WEIGHTS)
    assert statement.status == "bad"
    assert "correlation 0.70 on average on the way to a random network, 0.20 with it" in (
        statement.text
    )


def test_the_finest_cascade_decides() -> None:
    coarse, fine = randomization_scores({"a": 0.1}, 9), randomization_scores({"a": 0.9}, 9)
    stages = {1: coarse, 12: fine}
    scores = [
        replace(
            row,
            parameters=row.parameters | {"steps": count},
            facts=row.facts | {"stages": [""] * count},
        )
        for count, of_cascade in stages.items()
        for row in of_cascade
    ]
    assert statement_on(scores, "a", WEIGHTS).status == "bad"
    assert statement_on(scores[::-1], "a", WEIGHTS).status == "bad"


def test_a_cascade_without_a_number_is_not_settled() -> None:
    values = {"a": [math.nan] * 9}
    statement = statement_on(rows("parameter_randomization", values), "a", WEIGHTS)
    assert statement.status == "open"
    assert statement.text == "the randomization check gave no number"


def test_scores_of_single_stages_give_no_statement() -> None:
    order = {"order": "independent"}
    scores = [
        replace(row, parameters=row.parameters | order)
        for row in randomization_scores({"saliency": 0.9}, 9)
    ]
    (verdict,) = verdicts(score_index(scores))
    assert verdict.statements == ()


def test_cascades_of_single_stages_settle_nothing(tmp_path: Path) -> None:
    record = cascade(tmp_path).model_copy(update={"order": "independent"})
    (index,) = score_indexes([], [record])
    (statement,) = verdicts(index)[1].statements
    assert (statement.topic, statement.status) == (WEIGHTS, "open")
    assert "correlation 0.85 on average" in statement.text
    assert "top_down or bottom_up" in statement.text


@pytest.mark.parametrize(
    ("trained", "random", "words"),
    [
        (
            0.31,
            0.01,
            "; its removal gap falls when the network is randomized: 0.31 trained, 0.02 random",
        ),
        (0.31, -0.11, "0.31 trained, −0.10 random"),
        (0.31, -0.2, ""),  # the order of voxels is reversed
        (0.31, 0.13, "0.31 trained, 0.14 random"),
        (0.31, 0.14, ""),  # more than half with one of the seeds
        (0.31, 0.4, ""),
        (-0.1, -0.5, ""),
        (0.31, math.nan, ""),
    ],
)
def test_a_score_is_said_to_fall_if_and_only_if_it_falls(
    tmp_path: Path, trained: float, random: float, words: str
) -> None:
    record = with_metric(cascade(tmp_path), {"saliency": (trained, random), "edges": (0.1, 0.0)})
    statements = {v.method: v.statements[0] for v in verdicts(*score_indexes([], [record]))}
    text = statements["saliency"].text
    assert words in text
    assert ("falls" in text) is bool(words)
    assert "falls" not in statements["guided_backprop"].text  # it has no scores


def test_a_score_has_to_fall_on_every_case(tmp_path: Path) -> None:
    falling = with_metric(cascade(tmp_path), {"saliency": (0.3, 0.0)})
    kept = with_metric(cascade(tmp_path), {"saliency": (0.3, 0.3)}).model_copy(
        update={"case": "p02"}
    )
    other = with_metric(cascade(tmp_path), {"saliency": (0.5, 0.1)}).model_copy(
        update={"case": "p02"}
    )
    (index,) = score_indexes([], [falling, other])
    assert "0.40 trained, 0.06 random" in verdicts(index)[0].statements[0].text
    (index,) = score_indexes([], [falling, kept])
    assert "falls" not in verdicts(index)[0].statements[0].text


def test_only_scores_that_are_zero_by_chance_are_said_to_fall(tmp_path: Path) -> None:
    for name, falls in (("roc_auc", False), ("faithfulness_correlation", True)):
        record = with_metric(cascade(tmp_path), {"saliency": (0.9, 0.0)}, name)
        (index,) = score_indexes([], [record])
        assert ("falls" in verdicts(index)[0].statements[0].text) is falls
        (index,) = score_indexes([], [record.model_copy(update={"order": "independent"})])
        assert "falls" not in verdicts(index)[0].statements[0].text


def test_a_cascade_decides_where_there_is_no_score(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    (index,) = score_indexes([], [record])
    statements = {verdict.method: verdict.statements[0] for verdict in verdicts(index)}
    assert list(statements) == ["saliency", "guided_backprop"]
    assert statements["saliency"].status == "good"
    assert statements["guided_backprop"].status == "bad"
    text = statements["guided_backprop"].text
    assert "correlation 0.85 on average on the way to a random network, 0.82 with it" in text
    assert "on 1 case only" in text


def test_better_than_every_control_needs_every_interval() -> None:
    best = localization(0.91)
    assert best.status == "good"
    assert best.text.startswith("points at the reference better than every control (AUC 0.91,")
    assert "best control, an edge detector, 0.7" in best.text
    assert best.text.endswith("12 cases)")


def test_the_reference_itself_is_not_a_rival() -> None:
    assert localization(0.91, reference=1.0).status == "good"


def test_no_better_than_an_edge_detector() -> None:
    statement = localization(0.74)
    assert statement.status == "mixed"
    assert "better than random, but no better than an edge detector" in statement.text


def test_the_strongest_rival_is_named() -> None:
    assert "no better than a spot in the middle" in localization(0.74, edges=0.74, center=0.9).text
    assert "no better than an edge detector" in localization(0.74, edges=0.9, center=0.74).text


def test_only_cases_that_both_have_are_compared() -> None:
    """A case without a score of a control is left out; the order of the rows is irrelevant."""
    values = columns({"saliency": 0.9, "random": 0.5}, 12, 0.01)
    scores = rows("roc_auc", values)[::-1]
    scores = [row for row in scores if (row.method, row.case) != ("random", "p03")]
    assert statement_on(scores, "saliency", LOCALIZATION).status == "good"


def test_no_better_than_random() -> None:
    statement = localization(0.5, edges=0.4, intensity=0.3, center=0.3)
    assert statement.status == "bad"
    assert "no better than a random map" in statement.text


def test_lower_is_better_where_the_metric_says_so() -> None:
    centers = {"good": 0.1, "bad": 0.6, "random": 0.5, "edges": 0.4}
    scores = rows("deletion", columns(centers, 12), direction="down")
    assert statement_on(scores, "good", REMOVAL).status == "good"
    assert statement_on(scores, "bad", REMOVAL).status == "bad"


@pytest.mark.parametrize("count", [1, 3, 7])
def test_few_cases_have_numbers_and_no_claim(count: int) -> None:
    statement = localization(0.9, count)
    assert statement.status == "open"
    assert "ahead of every control (AUC 0." in statement.text
    assert f"{count} case" in statement.text
    assert "too few for an interval, which needs 8" in statement.text
    assert "not ahead of an edge detector" in localization(0.6, count).text


def test_without_controls_nothing_is_claimed() -> None:
    statement = statement_on(rows("roc_auc", {"saliency": [0.9] * 12}), "saliency", LOCALIZATION)
    assert statement.status == "open"
    assert "no control was scored" in statement.text


def test_an_undefined_score_says_why() -> None:
    values = {"saliency": [math.nan] * 9, "random": [0.5] * 9}
    statement = statement_on(rows("roc_auc", values), "saliency", LOCALIZATION)
    assert statement.status == "open"
    assert statement.text == "AUC is not defined: the map is constant"


@pytest.mark.parametrize(("value", "status"), [(0.1, "good"), (0.6, "mixed"), (1.4, "bad")])
def test_steadiness(value: float, status: str) -> None:
    scores = rows("max_sensitivity", {"saliency": [value] * 9}, direction="down")
    statement = statement_on(scores, "saliency", STEADINESS)
    assert statement.status == status
    assert f"at most {value:.2f} of its size" in statement.text


@pytest.mark.parametrize(("value", "status"), [(0.9, "good"), (0.6, "mixed"), (0.2, "bad")])
def test_scanner_like_changes(value: float, status: str) -> None:
    scores = rows("medical_stability", {"saliency": [value] * 9})
    statement = statement_on(scores, "saliency", STEADINESS)
    assert statement.status == status
    assert f"{value:.2f}" in statement.text


def test_every_statement_has_a_number_and_its_cases() -> None:
    for verdict in verdicts(score_index(score_table().rows)):
        assert verdict.method in METHODS
        assert verdict.method not in CONTROLS
        assert {statement.topic for statement in verdict.statements} == set(TOPICS)
        for statement in verdict.statements:
            assert any(letter.isdigit() for letter in statement.text)
            assert "cases" in statement.text


def test_targets_and_networks_have_verdicts_of_their_own() -> None:
    first = rows("roc_auc", {"saliency": [0.9]})
    second = [replace(row, model="second") for row in first]
    assert [(index.model, index.cases) for index in score_indexes([*first, *second])] == [
        ("unet", 1),
        ("second", 1),
    ]
