"""Verdicts on tables with known content: the right sentence, its number, and no claim from few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_scores import CONTROLS, METHODS, cascade, columns, rows, scored, survived, table

from voxplain.records.scores import Score
from voxplain.report.trust.score_index import ScoreIndex, score_indexes
from voxplain.report.trust.verdict import (
    FORGOTTEN,
    PLACE,
    REMOVAL,
    STEADINESS,
    SURVIVES,
    TOPICS,
    WEIGHTS,
    Statement,
    verdicts,
)

LEVELS = {"random": 0.5, "edges": 0.74, "intensity": 0.6, "center": 0.7, "reference": 1.0}


def ledger(found: Sequence[Score]) -> ScoreIndex:
    (only,) = score_indexes(found)
    return only


def said(found: Sequence[Score], method: str, topic: str) -> Statement:
    verdict = next(part for part in verdicts(ledger(found)) if part.method == method)
    (statement,) = [part for part in verdict.statements if part.topic == topic]
    return statement


def place(value: float, count: int = 12, **levels: float) -> Statement:
    centers = {"saliency": value, **LEVELS, **levels}
    found = rows("roc_auc", columns(centers, count, 0.01), family="localization")
    return said(found, "saliency", PLACE)


def test_a_map_that_survives_randomization_fails() -> None:
    statement = said(survived({"guided_backprop": 0.93}, 12), "guided_backprop", WEIGHTS)
    assert statement.status == "bad"
    words = "fails the randomization check: correlation 0.93 with a random network"
    assert statement.text.startswith(words)
    assert "two random networks: 0.01" in statement.text
    assert statement.text.endswith("12 cases")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (0.0, "good"),
        (FORGOTTEN, "good"),
        (-FORGOTTEN, "good"),
        (FORGOTTEN + 0.01, "mixed"),
        (-FORGOTTEN - 0.01, "mixed"),
        (SURVIVES - 0.01, "mixed"),
        (SURVIVES, "bad"),
        (1.0, "bad"),
    ],
)
def test_thresholds_of_randomization(value: float, status: str) -> None:
    assert said(survived({"saliency": value}, 9), "saliency", WEIGHTS).status == status


def test_strengths_that_stay_are_said_where_the_sign_is_forgotten() -> None:
    assert "correlation of strengths 0.90" in said(survived({"a": 0.0}, 9), "a", WEIGHTS).text
    assert "strengths" not in said(survived({"a": 0.9}, 9), "a", WEIGHTS).text


def test_a_map_that_stays_until_the_last_stage_fails() -> None:
    found = [
        replace(row, facts={"measures": {"spearman": {"mean": 0.7, "last": 0.2}}})
        for row in survived({"a": 0.0}, 9)
    ]
    statement = said(found, "a", WEIGHTS)
    assert statement.status == "bad"
    assert "correlation 0.70 on average on the way to a random network, 0.20 with it" in (
        statement.text
    )


def test_the_finest_cascade_counts() -> None:
    coarse, fine = survived({"a": 0.1}, 9), survived({"a": 0.9}, 9)
    stages = {1: coarse, 12: fine}
    found = [
        replace(
            row,
            parameters=row.parameters | {"steps": count},
            facts=row.facts | {"stages": [""] * count},
        )
        for count, part in stages.items()
        for row in part
    ]
    assert said(found, "a", WEIGHTS).status == said(found[::-1], "a", WEIGHTS).status == "bad"


def test_a_cascade_without_a_number_is_not_settled() -> None:
    values = {"a": [math.nan] * 9}
    statement = said(rows("parameter_randomization", values), "a", WEIGHTS)
    assert statement.status == "open"
    assert statement.text == "the randomization check gave no number"


def test_one_stage_at_a_time_says_nothing_of_a_random_network() -> None:
    found = survived({"saliency": 0.9}, 9)
    alone = {"order": "independent"}
    changed = [replace(row, parameters=row.parameters | alone) for row in found]
    (verdict,) = verdicts(ledger(changed))
    assert verdict.statements == ()


def test_one_stage_at_a_time_settles_nothing(tmp_path: Path) -> None:
    record = cascade(tmp_path).model_copy(update={"order": "independent"})
    (only,) = score_indexes([], [record])
    (statement,) = verdicts(only)[1].statements
    assert (statement.topic, statement.status) == (WEIGHTS, "open")
    assert "correlation 0.85 on average" in statement.text
    assert "top_down or bottom_up" in statement.text


@pytest.mark.parametrize(
    ("trained", "random", "words"),
    [
        (
            0.31,
            0.01,
            "; its removal gap falls with the network's training: 0.31 trained, 0.02 rand",
        ),
        (0.31, -0.11, "0.31 trained, −0.10 random"),
        (0.31, -0.2, ""),  # the order is not forgotten but reversed
        (0.31, 0.13, "0.31 trained, 0.14 random"),
        (0.31, 0.14, ""),  # with one seed it keeps more than half
        (0.31, 0.4, ""),
        (-0.1, -0.5, ""),
        (0.31, math.nan, ""),
    ],
)
def test_a_score_that_falls_is_said_if_and_only_if_it_falls(
    tmp_path: Path, trained: float, random: float, words: str
) -> None:
    record = scored(cascade(tmp_path), {"saliency": (trained, random), "edges": (0.1, 0.0)})
    statements = {v.method: v.statements[0] for v in verdicts(*score_indexes([], [record]))}
    text = statements["saliency"].text
    assert words in text
    assert ("falls" in text) is bool(words)
    assert "falls" not in statements["guided_backprop"].text  # nothing was asked of it


def test_a_score_has_to_fall_on_every_case(tmp_path: Path) -> None:
    one = scored(cascade(tmp_path), {"saliency": (0.3, 0.0)})
    kept = scored(cascade(tmp_path), {"saliency": (0.3, 0.3)}).model_copy(update={"case": "p02"})
    other = scored(cascade(tmp_path), {"saliency": (0.5, 0.1)}).model_copy(update={"case": "p02"})
    (together,) = score_indexes([], [one, other])
    assert "0.40 trained, 0.06 random" in verdicts(together)[0].statements[0].text
    (together,) = score_indexes([], [one, kept])
    assert "falls" not in verdicts(together)[0].statements[0].text


def test_only_scores_whose_chance_is_nothing_are_said_to_fall(tmp_path: Path) -> None:
    for name, said in (("roc_auc", False), ("faithfulness_correlation", True)):
        record = scored(cascade(tmp_path), {"saliency": (0.9, 0.0)}, name)
        (only,) = score_indexes([], [record])
        assert ("falls" in verdicts(only)[0].statements[0].text) is said
        (alone,) = score_indexes([], [record.model_copy(update={"order": "independent"})])
        assert "falls" not in verdicts(alone)[0].statements[0].text


def test_a_cascade_speaks_where_there_is_no_score(tmp_path: object) -> None:
    record = cascade(tmp_path)  # type: ignore[arg-type]
    (only,) = score_indexes([], [record])
    found = {verdict.method: verdict.statements[0] for verdict in verdicts(only)}
    assert list(found) == ["saliency", "guided_backprop"]
    assert found["saliency"].status == "good"
    assert found["guided_backprop"].status == "bad"
    text = found["guided_backprop"].text
    assert "correlation 0.85 on average on the way to a random network, 0.82 with it" in text
    assert "on 1 case only" in found["guided_backprop"].text


def test_better_than_every_control_needs_every_interval() -> None:
    best = place(0.91)
    assert best.status == "good"
    assert best.text.startswith("points at the reference better than every control (AUC 0.91,")
    assert "best control, an edge detector, 0.7" in best.text
    assert best.text.endswith("12 cases)")


def test_the_reference_itself_is_no_rival() -> None:
    assert place(0.91, reference=1.0).status == "good"


def test_no_better_than_an_edge_detector() -> None:
    statement = place(0.74)
    assert statement.status == "mixed"
    assert "better than random, but no better than an edge detector" in statement.text


def test_the_strongest_rival_is_named() -> None:
    assert "no better than a spot in the middle" in place(0.74, edges=0.74, center=0.9).text
    assert "no better than an edge detector" in place(0.74, edges=0.9, center=0.74).text


def test_only_cases_that_both_have_are_compared() -> None:
    """An image on which a control could not be judged plays no part, nor the order of rows."""
    values = columns({"saliency": 0.9, "random": 0.5}, 12, 0.01)
    found = rows("roc_auc", values)[::-1]
    without = [row for row in found if (row.method, row.case) != ("random", "p03")]
    assert said(without, "saliency", PLACE).status == "good"


def test_no_better_than_random() -> None:
    statement = place(0.5, edges=0.4, intensity=0.3, center=0.3)
    assert statement.status == "bad"
    assert "no better than a random map" in statement.text


def test_lower_is_better_where_the_metric_says_so() -> None:
    centers = {"good": 0.1, "bad": 0.6, "random": 0.5, "edges": 0.4}
    found = rows("deletion", columns(centers, 12), direction="down")
    assert said(found, "good", REMOVAL).status == "good"
    assert said(found, "bad", REMOVAL).status == "bad"


@pytest.mark.parametrize("count", [1, 3, 7])
def test_few_cases_give_numbers_and_no_claim(count: int) -> None:
    statement = place(0.9, count)
    assert statement.status == "open"
    assert "ahead of every control (AUC 0." in statement.text
    assert f"{count} case" in statement.text
    assert "too few for an interval, which needs 8" in statement.text
    assert "not ahead of an edge detector" in place(0.6, count).text


def test_without_controls_nothing_is_claimed() -> None:
    statement = said(rows("roc_auc", {"saliency": [0.9] * 12}), "saliency", PLACE)
    assert statement.status == "open"
    assert "no control was judged" in statement.text


def test_an_undefined_score_says_why() -> None:
    values = {"saliency": [math.nan] * 9, "random": [0.5] * 9}
    statement = said(rows("roc_auc", values), "saliency", PLACE)
    assert statement.status == "open"
    assert statement.text == "AUC is not defined: the map is constant"


@pytest.mark.parametrize(("value", "status"), [(0.1, "good"), (0.6, "mixed"), (1.4, "bad")])
def test_steadiness(value: float, status: str) -> None:
    found = rows("max_sensitivity", {"saliency": [value] * 9}, direction="down")
    statement = said(found, "saliency", STEADINESS)
    assert statement.status == status
    assert f"at most {value:.2f} of its size" in statement.text


@pytest.mark.parametrize(("value", "status"), [(0.9, "good"), (0.6, "mixed"), (0.2, "bad")])
def test_scanner_like_changes(value: float, status: str) -> None:
    found = rows("medical_stability", {"saliency": [value] * 9})
    statement = said(found, "saliency", STEADINESS)
    assert statement.status == status
    assert f"{value:.2f}" in statement.text


def test_every_statement_has_a_number_and_its_cases() -> None:
    for verdict in verdicts(ledger(table().rows)):
        assert verdict.method in METHODS
        assert verdict.method not in CONTROLS
        assert {part.topic for part in verdict.statements} == set(TOPICS)
        for part in verdict.statements:
            assert any(letter.isdigit() for letter in part.text)
            assert "cases" in part.text


def test_targets_and_networks_are_judged_apart() -> None:
    one = rows("roc_auc", {"saliency": [0.9]})
    other = [replace(row, model="second") for row in one]
    assert [(part.model, part.cases) for part in score_indexes([*one, *other])] == [
        ("unet", 1),
        ("second", 1),
    ]
