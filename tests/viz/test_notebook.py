from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from synthetic_runs import RunWriter, head

from voxplain.image import Grid, Image
from voxplain.records.sidecar import Sidecar
from voxplain.viz.notebook import panel_html
from voxplain.viz.words import duration, number, percent, sentence, setting, sizes, title


@dataclass(frozen=True)
class PlainAttribution:
    """An attribution, as far as the panel needs it."""

    map: torch.Tensor
    grid: Grid | None
    sidecar: Sidecar
    batched: bool = False


@pytest.fixture
def sidecar(tmp_path) -> Sidecar:
    run = RunWriter(tmp_path)
    run.map("c", "<net>", "saliency", np.ones((1, 4, 4, 4)), np.eye(4))
    return Sidecar.model_validate_json((tmp_path / run.parts["maps"][0].sidecar).read_text())


def test_a_panel_is_self_contained_and_describes_its_map(sidecar: Sidecar) -> None:
    image, white, affine = head(10.0)
    grid = Grid(image.shape, affine)
    attribution = PlainAttribution(torch.from_numpy(white[None] * 1.0), grid, sidecar)
    html = panel_html(attribution, Image(torch.from_numpy(image[None]), grid))
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "Saliency" in html
    assert "How the score changes when one voxel changes a little." in html
    assert "not what is true" in html


def test_a_panel_is_made_without_the_report() -> None:
    code = (
        "import sys; from voxplain.viz.templates import template_environment;"
        "template_environment().get_template('notebook.html.jinja');"
        "assert not [name for name in sys.modules if name.startswith('voxplain.report')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_panel_needs_no_image_no_grid_and_no_third_axis(sidecar: Sidecar) -> None:
    flat = PlainAttribution(torch.ones(3, 8, 9), Grid.default((8, 9)), sidecar)
    assert "<img" in panel_html(flat)
    assert "<img" not in panel_html(PlainAttribution(torch.ones(5), None, sidecar))
    assert "attribution[0]" in panel_html(
        PlainAttribution(torch.ones(2, 1, 4, 4, 4), None, sidecar, True)
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,200"),
        (-0.0342, "−0.034"),
        (9.96, "10"),
        (0.996, "1.0"),
        (4.1e-7, "4.1 × 10⁻⁷"),
        (-2.345e9, "−2.3 × 10⁹"),
        (9.99e-4, "0.0010"),
        (float("nan"), "not a number"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_values_as_text() -> None:
    assert number(41_234.5, 3) == "41,200"
    assert percent(0.0012) == "0.12 %"
    assert [duration(s) for s in (0.5, 59.2)] == ["0.50 s", "59 s"]
    assert [duration(s) for s in (200, 3900)] == ["3 min 20 s", "1 h 5 min"]
    assert sizes((192, 233.0, 1.25), "mm") == "192 × 233 × 1.25 mm"
    assert title("layer_conductance") == "Layer conductance"
    assert sentence("the score of class 1.") == "The score of class 1"
    assert setting({"kind": "constant", "value": 0.0}) == "kind constant, value 0"
    assert setting([True, None, "a"]) == "yes, none, a"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grad_cam_plus_plus", "Grad-CAM++"),
        ("x_grad_cam", "XGrad-CAM"),
        ("layer_deep_lift_shap", "Layer DeepLIFT SHAP"),
        ("smoothgrad_squared_guided_backprop", "SmoothGrad squared guided backpropagation"),
        ("input_x_gradient", "Input × gradient"),
        ("mc_rise", "MC-RISE"),
        ("layer_lrp", "Layer LRP"),
        ("My own label", "My own label"),
    ],
)
def test_methods_are_spelled_as_in_their_papers(name: str, text: str) -> None:
    assert title(name) == text
