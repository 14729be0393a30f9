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
from voxplain.viz import notebook
from voxplain.viz.figures import map_figure
from voxplain.viz.notebook import panel_html
from voxplain.viz.overlay import Overlay


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
    return Sidecar.model_validate_json((tmp_path / run.records["maps"][0].sidecar).read_text())


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


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (2.5, -100.0), (-4.0, 8.0)])
def test_the_window_that_a_source_states_is_that_of_the_scaled_image(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, slope: float, intercept: float
) -> None:
    """A value v of the image is slope v + intercept in the source."""
    drawn: list[Overlay] = []
    monkeypatch.setattr(notebook, "map_figure", lambda shown: drawn.append(shown) or plain(shown))
    plain = map_figure
    values, grid = torch.arange(60.0).reshape(1, 3, 4, 5), Grid.default((3, 4, 5), 1.0)
    ends = (10.0, 40.0)
    image = Image(
        values, grid, intensity=((slope, intercept),),
        source={"window": [slope * end + intercept for end in ends]},
    )  # fmt: skip
    panel_html(PlainAttribution(values, grid, sidecar), image)
    assert drawn[0].windows == (pytest.approx(ends),)
