"""Findings of perturbation methods as text and bars on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from html_page import Page
from synthetic_runs import RunWriter

from voxplain.image import Grid
from voxplain.records.sidecar import Sidecar
from voxplain.report import render
from voxplain.viz.facts import alternative_text, map_facts
from voxplain.viz.findings import MOST, finding_facts, top_regions
from voxplain.viz.notebook import panel_html
from voxplain.viz.volume import DisplayVolume

MASKED = [{"masks": {"name": "ShapleyKernel"}, "fill": {"kind": "mean"}}]


def regions(*pairs: tuple[str, float], **others: float) -> list[dict[str, Any]]:
    return [{"name": name, "value": value, **others, "voxels": 8} for name, value in pairs]


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    run = RunWriter(tmp_path)
    run.map("c", "net", "kernel_shap", np.ones((1, 4, 4, 4)), np.eye(4))
    text = (tmp_path / run.records["maps"][0].sidecar).read_text("utf-8")
    return Sidecar.model_validate_json(text).model_copy(update={"stream": MASKED})


def with_findings(sidecar: Sidecar, **findings: Any) -> Sidecar:
    return sidecar.model_copy(update={"findings": findings})


def test_the_strongest_regions_are_listed_with_bars_to_the_side_of_their_sign(
    sidecar: Sidecar,
) -> None:
    pairs = [("left <caudate>", 2.0), ("right caudate", -1.0), ("rest", 0.0)]
    (table,) = top_regions(with_findings(sidecar, regions=regions(*pairs, standard_error=0.25)))
    assert table.heads == ("±", "Voxels")
    assert [row.name for row in table.rows] == ["left <caudate>", "right caudate", "rest"]
    assert [row.value for row in table.rows] == ["2.00", "−1.00", "0"]
    assert [row.others for row in table.rows] == [("0.25", "8")] * 3
    assert [row.bar for row in table.rows] == [
        "left:50.0%;width:50.0%",
        "left:25.0%;width:25.0%",
        "left:50.0%;width:0.0%",
    ]


def test_values_of_one_sign_have_bars_of_the_whole_width(sidecar: Sidecar) -> None:
    (table,) = top_regions(with_findings(sidecar, regions=regions(("a", 4.0), ("b", 1.0))))
    assert [row.bar for row in table.rows] == ["left:0;width:100.0%", "left:0;width:25.0%"]


def test_a_long_list_is_cut_and_says_so(sidecar: Sidecar) -> None:
    many = regions(*((f"region {n}", float(100 - n)) for n in range(60)))
    (table,) = top_regions(with_findings(sidecar, regions=many))
    assert len(table.rows) == MOST
    assert table.caption == "The strongest 8 of 60 regions; the sidecar has the others"


def test_channels_of_a_layer_and_ranks_have_names_too(sidecar: Sidecar) -> None:
    channels = [{"channels": [3, 5], "value": 0.5}, {"channels": [1], "value": 0.1}]
    ranks = [{"rank": 1, "value": 0.5, "voxels": 9}]
    tables = top_regions(with_findings(sidecar, channels=channels, regions=ranks))
    assert [row.name for table in tables for row in table.rows] == ["number 1", "3, 5", "1"]
    assert [table.kind for table in tables] == ["Region", "Channel"]


@pytest.mark.parametrize(
    ("findings", "fact"),
    [
        ({"r2": 0.931}, ("Surrogate", "explains 93 % of how the score varies")),
        ({"r2": -0.2}, ("Surrogate", "explains nothing of how the score varies (R² −0.20)")),
        ({"r2_held_out": 0.5},
         ("Surrogate", "explains 50 % of how the score varies on coalitions held out")),
        ({"r2_held_out_of_additive_part": 0.25},
         ("Surrogate (additive part)",
          "explains 25 % of how the score varies on coalitions held out")),
        ({"determined": True}, ("Values", "determined by the coalitions")),
        ({"determined": False},
         ("Values", "not determined by so few coalitions; those closest to equal are shown")),
        ({"intercept": -3.14159}, ("Intercept", "−3.1")),
        ({"coalitions": 1200}, ("Coalitions", "1,200")),
        ({"kernel_of_scores": "gaussian"}, ("Kernel of scores", "gaussian")),
        ({"share_percent": {"t1": 70.0, "flair": 30.0}}, ("Share percent", "t1 70, flair 30")),
        ({"areas": [{"asked": 0.1, "covered": 0.11}]}, ("Areas", "asked 0.10, covered 0.11")),
    ],
)  # fmt: skip
def test_numbers_are_given_as_text(
    sidecar: Sidecar, findings: dict[str, Any], fact: tuple[str, str]
) -> None:
    assert finding_facts(with_findings(sidecar, **findings)) == [fact]


def test_empty_findings_are_left_out(sidecar: Sidecar) -> None:
    assert finding_facts(with_findings(sidecar, r2=None, regions=[])) == []
    assert top_regions(with_findings(sidecar, r2=None, regions=[])) == []


def test_totals_count_every_region_once_and_not_every_voxel(sidecar: Sidecar) -> None:
    masked = with_findings(sidecar, regions=regions(("large", 3.0), ("small", -1.0)))
    masked = masked.model_copy(update={"completeness": 0.02, "sign": "signed"})
    facts = dict(map_facts(masked, None))
    assert facts["Sum of regions"] == "2.0"
    assert "Sum" not in facts
    assert facts["Completeness residual"] == "2.0 % of S(x) − S(nothing left)"
    assert re.match(r"[\d,]+ forwards?, ", facts["Cost"])
    plain = sidecar.model_copy(update={"stream": [{"sampler": {}}], "completeness": 0.02})
    facts = dict(map_facts(plain.model_copy(update={"resampling": "mass"}), None))
    assert "Sum" in facts
    assert "Sum" not in dict(map_facts(plain.model_copy(update={"resampling": "value"}), None))
    assert facts["Completeness residual"].endswith("S(baseline)")
    assert "pass" in facts["Cost"]


def test_sums_of_channels_and_single_channels_are_told_apart(sidecar: Sidecar) -> None:
    values = torch.zeros(2, 4, 4, 4)
    values[:, 1, 2, 3] = torch.tensor([3.0, 4.0])
    several = sidecar.model_copy(update={"channels": ("t1", "t2"), "layer_read": "encoder.2"})
    facts = dict(map_facts(several, DisplayVolume.of(values, Grid.default((4, 4, 4)))))
    assert facts["Strongest sum of channels"].startswith("7.0 at ")
    assert {"Range of single channels", "Middle 99 % of single channels"} <= facts.keys()
    assert not {"Strongest", "Range"} & facts.keys()
    assert facts["Made from layer"] == "encoder.2"
    volume = DisplayVolume.of(values[:1], Grid.default((4, 4, 4)))
    facts = dict(map_facts(sidecar, volume))
    assert facts["Strongest"].startswith("3.0 at ")
    assert "Range" in facts
    assert "Made from layer" not in facts
    assert "summed over channels" not in alternative_text("m", volume, sidecar)
    both = DisplayVolume.of(values, Grid.default((4, 4, 4)))
    assert "summed over channels, 7.0, at" in alternative_text("m", both, several)


def test_the_page_states_the_precision_that_ran(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    run.records["models"][0].precision = "bfloat16"
    run.model("never explained")
    run.records["models"][1].precision = "float16"
    affine = np.eye(4)
    run.case("c", np.ones((1, 4, 4, 4)), affine)
    run.map("c", "net", "saliency", np.ones((1, 4, 4, 4)), affine)
    text = Page(render(run.finish())).text
    assert "parameters, float32" in text
    assert "parameters, bfloat16" not in text
    assert "parameters, float16" in text


def test_the_balance_is_of_regions_whatever_their_size(sidecar: Sidecar) -> None:
    masked = with_findings(sidecar, regions=regions(("large", 1.0), ("small", -3.0)))
    values = torch.ones(1, 4, 4, 4)
    values[0, 0, 0, 0] = -3.0
    html = panel_html(PlainAttribution(values, masked.model_copy(update={"sign": "signed"})))
    assert "25 % evidence for, 75 % against" in html


def test_panel_and_page_show_the_list_and_escape_its_names(
    sidecar: Sidecar, tmp_path: Path
) -> None:
    masked = with_findings(sidecar, regions=regions(("left <caudate>", 2.0), ("b", -1.0)), r2=0.9)
    html = panel_html(PlainAttribution(torch.ones(1, 4, 4, 4), masked))
    for text in ("left &lt;caudate&gt;", "left:25.0%;width:25.0%", "explains 90 % of"):
        assert text in html
    assert "<caudate>" not in html


@pytest.mark.parametrize("share", [False, True])
def test_the_report_shows_the_list_also_without_images(tmp_path: Path, share: bool) -> None:
    run = RunWriter(tmp_path / "run")
    run.model("net")
    run.case("c", np.arange(216.0).reshape(1, 6, 6, 6), np.eye(4))
    run.map("c", "net", "kernel_shap", np.ones((1, 6, 6, 6)), np.eye(4))
    folder = run.finish()
    file = next(folder.rglob("maps/**/*.json"))
    masked = Sidecar.model_validate_json(file.read_text("utf-8"))
    file.write_text(with_findings(masked, regions=regions(("atlas name", 2.0)), r2=0.9).to_json())
    page = render(folder, share=share).read_text("utf-8")
    assert "atlas name" in page
    assert "explains 90 % of how the score varies" in page


class PlainAttribution:
    """An attribution, as far as the notebook panel needs it."""

    def __init__(self, values: torch.Tensor, sidecar: Sidecar) -> None:
        self.map, self.sidecar = values, sidecar
        self.grid = Grid(tuple(values.shape[1:]), np.eye(4))
