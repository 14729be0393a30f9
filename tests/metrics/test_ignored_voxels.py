"""Voxels of which a reference says nothing are left out of every comparison with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from voxplain import Model, evaluate, explain
from voxplain.image import Grid
from voxplain.io import read_mask
from voxplain.metrics import Case
from voxplain.study.planning.tasks import digest
from voxplain.targets import parse_target

IGNORE = 255
PLAIN = [
    "roc_auc", "auprc", "max_dice", "top_k_intersection", "relevance_rank_accuracy", "iou_at",
    "relevance_mass_accuracy", "attribution_localization",
]  # fmt: skip
"""Metrics that know nothing of places: without a voxel they are those of an image without it."""
PLACED: list[Any] = [
    {"name": "pointing_game", "tolerance": 1.0},
    {"name": "energy_in_dilated_mask", "margin": 1.0},
    {"name": "lesion_hit_rate"},
    {"name": "distance_to_lesion"},
]


class Shift(nn.Module):
    """Two classes at every voxel; the second is the image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:, :1]), 2 * x[:, :1]], dim=1)


def scene(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """An image, a map, and a reference in whose last planes nothing is known."""
    shape = (8, 6, 7)[:rank]
    torch.manual_seed(2)
    labels = torch.zeros(shape, dtype=torch.long)
    labels[2:4, 1:3] = 1
    labels[6:] = IGNORE
    image, found = torch.randn(1, 1, *shape), torch.randn(1, *shape)
    found[:, 7] += 5  # where nothing is known the map is strongest
    return image, found, labels


def scores(image: Tensor, found: Tensor, labels: Tensor, metrics: list[Any], **case: Any) -> Any:
    table = evaluate(
        Shift(), image, {"map": found}, metrics, {"kind": "class_score", "label": 1},
        cases=[Case(mask=labels, **case)], controls=False,
    )  # fmt: skip
    return {row.metric: row for row in table.rows}


@pytest.mark.parametrize("rank", [2, 3])
def test_metrics_are_those_of_the_remaining_voxels(rank: int) -> None:
    """The ignored voxels are whole planes, so that the others are an image of their own."""
    image, found, labels = scene(rank)
    metrics = [*PLAIN, *PLACED]
    left_out = scores(image, found, labels, metrics, ignore=IGNORE)
    cut = scores(image[:, :, :6], found[:, :6], labels[:6], metrics)
    whole = scores(image, found, labels * (labels == 1), metrics)
    for name, row in cut.items():
        assert left_out[name].value == pytest.approx(row.value, abs=1e-12), name
    differs = [name for name, row in whole.items() if row.value != left_out[name].value]
    assert {"roc_auc", "auprc", "max_dice", "relevance_mass_accuracy"} <= set(differs)
    assert {"attribution_localization", "energy_in_dilated_mask", "distance_to_lesion"} <= {
        *differs
    }


def test_roc_auc_by_hand() -> None:
    image, found, labels = scene(3)
    kept = (labels != IGNORE).flatten()
    values, inside = found.flatten()[kept].double(), (labels == 1).flatten()[kept]
    above = (values[inside][:, None] > values[~inside][None]).double().mean()
    left_out = scores(image, found, labels, ["roc_auc"], ignore=IGNORE)["roc_auc"]
    assert left_out.value == pytest.approx(float(above), abs=1e-12)


def test_calibration_and_correctness_leave_them_out() -> None:
    image, found, labels = scene(2)
    left_out = scores(image, found, labels, ["calibration"], ignore=IGNORE)
    cut = scores(image[:, :, :6], found[:, :6], labels[:6], ["calibration"])
    (name,) = cut
    assert left_out[name].value == pytest.approx(cut[name].value, abs=1e-12)


@pytest.mark.parametrize("error", ["fp", "fn"])
def test_an_error_target_leaves_them_out(error: str) -> None:
    image, _, labels = scene(2)
    declared = {"kind": "error_region", "label": 1, "error": error, "reference": labels.numpy()}
    found = explain(Shift(), image, "saliency", {**declared, "ignore": IGNORE})["saliency"].map
    predicted, known = image[0, 0] > 0, labels != IGNORE
    wrong = predicted & (labels != 1) if error == "fp" else ~predicted & (labels == 1)
    assert torch.equal(found[0, 0] != 0, wrong & known)


def test_a_region_leaves_them_out() -> None:
    image, _, labels = scene(2)
    declared = {"kind": "region", "label": 1, "mask": labels.numpy(), "ignore": IGNORE}
    found = explain(Model(Shift()), image, "saliency", declared)["saliency"].map
    assert torch.equal(found[0, 0] != 0, labels == 1)


def test_targets_that_ignore_nothing_are_dumped_as_before() -> None:
    target = parse_target({"kind": "region", "label": 1, "voxel": [1, 1]})
    assert "ignore" not in target.model_dump(mode="json")
    stated = parse_target({"kind": "region", "label": 1, "mask": "a.nii", "ignore": IGNORE})
    assert stated.model_dump(mode="json")["ignore"] == IGNORE
    assert digest(target.model_dump(mode="json")) != digest(stated.model_dump(mode="json"))


def test_a_picture_of_0_and_255_holds_no_region_where_255_is_ignored(tmp_path: Any) -> None:
    labels = np.zeros((6, 5), np.uint8)
    labels[2:4] = IGNORE
    Pillow.fromarray(labels).save(tmp_path / "m.png")
    grid = Grid.picture((6, 5))
    assert read_mask(tmp_path / "m.png", grid).unique().tolist() == [0, 1]
    assert read_mask(tmp_path / "m.png", grid, ignore=IGNORE).unique().tolist() == [0, IGNORE]
