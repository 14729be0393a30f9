"""Cards of units: verdicts in words, relevance, accentuation, and links to the table."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from test_analyses_of_networks import SMALL, done, parts
from tiny import TinyStudy

from voxplain.analyses import parse_analysis
from voxplain.analyses.dissection import DissectionAnalysis
from voxplain.analyses.dissection_verdicts import detector_verdicts
from voxplain.records.analysis_page import PageCard
from voxplain.records.dissection import DissectionRecord, PairDissected
from voxplain.study import Study, check_study, run_study
from voxplain.synthesis.methods.accentuation import FeatureAccentuation
from voxplain.targets import parse_target


def found_with(**scores: Any) -> tuple[DissectionRecord, PairDissected]:
    """One unit beside a modality of IoU 0.4 and a random unit of IoU 0.1."""
    own = PairDissected(
        **{
            "unit": "dec1/3",
            "origin": "layer",
            "concept": "WT",
            "iou": 0.6,
            "bar": 0.4,
            "interval": (0.5, 0.7),
            "null": 0.2,
            "p_adjusted": 0.01,
            "detector": True,
            **scores,
        }
    )
    flair = PairDissected(unit="+flair", origin="input", concept="WT", iou=0.4)
    random = PairDissected(unit="dec1/0", origin="random", concept="WT", iou=0.1)
    other = PairDissected(unit="+t2", origin="input", concept="ED", iou=0.9)
    record = DissectionRecord(
        model="unet",
        threshold="max_iou",
        quantile=0.005,
        region="foreground",
        smallest_iou=0.04,
        selection=(),
        held_out=(),
        patients=9,
        concepts=(),
        units=(),
        pairs=(own, flair, random, other),
    )
    return record, own


def statuses(**scores: Any) -> list[str]:
    return [each.status for each in detector_verdicts(*found_with(**scores))]


def test_a_detector_is_told_with_each_of_its_reasons() -> None:
    verdicts = detector_verdicts(*found_with())
    assert [each.status for each in verdicts] == ["pass"] * 6
    assert "the lower end of its IoU, 0.50, exceeds 0.40" in verdicts[0].text
    assert "+flair" in verdicts[2].text
    assert "dec1/0" in verdicts[3].text


def test_the_reason_that_fails_is_the_one_that_is_shown() -> None:
    no = {"detector": False}
    assert statuses(interval=(0.3, 0.7), **no)[1:] == ["pass", "fail", "pass", "pass", "pass"]
    assert statuses(null=0.55, **no)[1:] == ["pass", "pass", "pass", "fail", "pass"]
    verdicts = detector_verdicts(*found_with(p_adjusted=0.2, **no))
    assert [each.status for each in verdicts[1:]] == [*["pass"] * 4, "fail"]
    assert "chance" in verdicts[0].text


def test_without_an_interval_nothing_is_judged() -> None:
    (only,) = detector_verdicts(*found_with(interval=None, detector=None))
    assert only.status == "not measured"
    assert "8 held-out patients" in only.text


def cards_of(run: Any) -> tuple[list[PageCard], Any, Any]:
    _, page, folder = parts(run)["dissection"]
    return page.cards, page, folder


def test_a_card_shows_relevance_and_accentuation_and_leads_to_its_row(
    blobs: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a penalty, which in so small a network any change costs more than it brings."""
    free = partial(FeatureAccentuation, penalty=0.0)
    monkeypatch.setattr("voxplain.analyses.accentuated_units.FeatureAccentuation", free)
    run = done(blobs, "dissection")
    assert not run.failed
    cards, page, folder = cards_of(run)
    record = json.loads((folder / "relevance.json").read_text())
    assert record["rule"] == "lrp"
    captions = [[figure.caption for figure in card.figures] for card in cards]
    assert all(len(each) >= 4 for each in captions)
    for ends in captions:
        kinds = ("strongest", "weakest", "most relevance", "relevance")
        assert all(kind in caption for kind, caption in zip(kinds, ends, strict=False))
    first = cards[0].figures[4]
    assert {each.topic for each in first.verdicts} >= {"likeness", "random network", "seeds"}
    assert [each.topic for each in cards[0].verdicts][-1] == "accentuation"
    assert all((folder / figure.file).is_file() for card in cards for figure in card.figures)
    table = page.tables[0]
    for card in cards:
        (link,) = card.links
        row = table.names.index(link[1])
        assert table.cards[row] in {each.name for each in cards}


def test_an_image_that_stayed_as_it_was_is_no_accentuation(blobs: TinyStudy) -> None:
    small = {**SMALL["dissection"], "accentuation_steps": 1}
    blobs.write(analyses=[{"name": "dissection", **small}])
    cards, _, _ = cards_of(run_study(Study.load(blobs.file)))
    last = cards[0].verdicts[-1]
    assert (last.topic, last.status) == ("accentuation", "not measured")
    assert "no change of case" in last.text
    assert not any(figure.verdicts for figure in cards[0].figures)


def test_a_study_without_a_target_has_cards_without_relevance(blobs: TinyStudy) -> None:
    run = done(blobs, "dissection", target=None)
    assert not run.failed
    cards, _, folder = cards_of(run)
    assert not (folder / "relevance.json").exists()
    assert not any("relevance" in figure.caption for card in cards for figure in card.figures)


def test_what_cannot_be_done_is_a_remark_and_costs_no_card(blobs: TinyStudy) -> None:
    """A class that the network does not have."""
    small = {**SMALL["dissection"], "target": "pixelwise:7"}
    blobs.write(analyses=[{"name": "dissection", **small}])
    run = run_study(Study.load(blobs.file))
    assert not run.failed
    cards, page, _ = cards_of(run)
    assert cards
    assert any("relevance of units was not measured" in remark for remark in page.remarks)


def test_relevance_and_accentuation_are_planned(blobs: TinyStudy) -> None:
    plain = DissectionAnalysis(accentuated=0, cards=2, exemplars=1)
    about = plain.asked_about([parse_target("pixelwise:1"), parse_target("pixelwise:0")])
    assert about.target == parse_target("pixelwise:1")
    assert plain.model_copy(update={"relevance": False}).asked_about([about.target]).target is None
    backwards = [each.cost(10).passes - each.cost(10).forwards for each in (plain, about)]
    assert backwards == [0, 10 + 2 * 2]
    more = DissectionAnalysis(accentuated=2, accentuation_steps=16, cards=2, exemplars=1)
    assert more.cost(10).passes - plain.cost(10).passes == 2 * (4 * 16 + 10)
    blobs.write(analyses=[{"name": "dissection", **SMALL["dissection"]}])
    (task,) = check_study(Study.load(blobs.file)).plan.analyses
    assert task.analysis.target is not None
    assert "relevance" in task.streams[0]


def test_a_target_that_is_mistyped_is_named() -> None:
    with pytest.raises(Exception, match="pixelwise"):
        parse_analysis({"name": "dissection", "target": "pixelwize:1"})
