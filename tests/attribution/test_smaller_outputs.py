"""Outputs smaller than the image: all that is about them lies where it belongs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain.attribution import explain, predict
from voxplain.attribution.prediction import NOT_COVERED
from voxplain.errors import TargetError
from voxplain.image import Image
from voxplain.models.model import Model

every_rank = pytest.mark.parametrize("rank", [2, 3])


class Valid(nn.Module):
    """Two classes on the inner voxels: 2 are lost before and behind each axis."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{rank}d")
        torch.manual_seed(rank)
        self.first, self.act, self.second = conv(1, 4, 3), nn.ReLU(), conv(4, 2, 3)

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.second(self.act(self.first(image)))
        return output


class Filled(nn.Module):
    """The same network with an output for each voxel: class 0 at the border."""

    def __init__(self, valid: nn.Module) -> None:
        super().__init__()
        self.valid = valid

    def forward(self, image: Tensor) -> Tensor:
        output = self.valid(image)
        output = nn.functional.pad(output, [2] * 2 * (output.ndim - 2))
        border = torch.zeros_like(output[:, :1])
        border[(..., *(slice(2, -2),) * (output.ndim - 2))] = -1
        return torch.cat([output[:, :1] + 100 * (border + 1), output[:, 1:]], 1)


def _image(rank: int) -> Image:
    torch.manual_seed(7)
    return Image.from_array(torch.randn(1, *(11, 9, 10)[:rank]), spacing=2.0)


@every_rank
@pytest.mark.parametrize("link", ["score", "probability"])
@pytest.mark.parametrize("error", [None, "fp", "fn"])
def test_masks_are_those_on_the_voxels_of_the_image(rank: int, link: str, error: Any) -> None:
    image, valid = _image(rank), Valid(rank)
    mask = torch.rand(image.grid.shape) > 0.5
    shrunk = tuple(slice(2, -2) for _ in range(rank))
    inner = torch.zeros_like(mask)
    inner[shrunk] = mask[shrunk]
    target: dict[str, Any] = {"kind": "region", "label": 1, "mask": mask, "link": link}
    if error is not None:
        target = {"kind": "error_region", "label": 1, "reference": mask, "error": error}
    key = "mask" if error is None else "reference"
    found = explain(valid, image, "saliency", target)["saliency"]
    expected = explain(Filled(valid), image, "saliency", {**target, key: inner})["saliency"]
    torch.testing.assert_close(found.map, expected.map)
    assert found.stats.scores == pytest.approx(expected.stats.scores, rel=1e-5)
    assert any("covers voxels 2 to 8 of 11" in text for text in found.sidecar.warnings)


@every_rank
def test_volumes_and_labels(rank: int) -> None:
    image, valid = _image(rank), Valid(rank)
    found = predict(valid, image, {"kind": "volume", "label": 1})
    whole = predict(Filled(valid), image, {"kind": "volume", "label": 1})
    assert found.score == pytest.approx(whole.score, rel=1e-5)
    assert found.volumes["class 1"] == pytest.approx(whole.volumes["class 1"])
    assert found.labels is not None
    assert whole.labels is not None
    covered = (slice(2, -2),) * rank
    assert torch.equal(found.labels[covered], whole.labels[covered])
    found.labels[covered] = NOT_COVERED
    assert (found.labels == NOT_COVERED).all()
    assert "covers voxels 2 to 8 of 11" in found.remarks[-1]


@every_rank
@pytest.mark.parametrize("blend", ["gaussian", "constant", "nnunet"])
def test_windows_explain_the_whole(rank: int, blend: str) -> None:
    """Each output depends on its receptive field alone, so that all methods agree."""
    image, valid = _image(rank), Valid(rank)
    model = Model(valid, window={"size": 7, "overlap": 0.4, "blend": blend, "batch": 3})
    mask = torch.rand(image.grid.shape) > 0.5
    methods: list[Any] = [
        "saliency",
        {"name": "integrated_gradients", "steps": 3},
        {"name": "occlusion", "window": 4, "stride": 3, "fill": 0},
        {"name": "deep_lift", "baseline": "zero"},
    ]
    for target in (
        {"kind": "region", "label": 1, "mask": mask},
        {"kind": "volume", "label": 1},
        {"kind": "pixelwise", "label": 0},
    ):
        whole, parts = (explain(each, image, methods, target) for each in (valid, model))
        for key, attribution in whole.items():
            torch.testing.assert_close(parts[key].map, attribution.map, rtol=1e-4, atol=1e-5)
            assert parts[key].stats.scores == pytest.approx(attribution.stats.scores, rel=1e-5)


@every_rank
def test_a_cam_is_zero_beyond_its_layer(rank: int) -> None:
    image, valid = _image(rank), Valid(rank)
    method = {"name": "grad_cam", "layer": "act"}
    found = explain(valid, image, method, {"kind": "class_score", "label": 1})["grad_cam"]
    with torch.no_grad():
        activation = valid.act(valid.first(image.data[None]))[0]
    kernel = valid.second.weight[1].detach()
    # Each cell of the layer adds its weights that fall on outputs: the mean over cells.
    outputs = torch.ones(1, 1, *(side - 4 for side in image.grid.shape))
    spread = getattr(nn.functional, f"conv_transpose{rank}d")(outputs, kernel[None])[0]
    weights = spread.flatten(1).mean(1).view(-1, *(1,) * rank)
    cam = (weights * activation).sum(0).relu()
    inside = (0, *(slice(1, -1),) * rank)
    torch.testing.assert_close(found.map[inside], cam, rtol=1e-4, atol=1e-5)
    found.map[inside] = 0
    assert not found.map.any()
    said = " ".join(found.sidecar.warnings)
    assert "layer 'act' covers voxels 1 to 9 of 11" in said


def test_unknown_places_are_refused() -> None:
    class Gathered(nn.Module):
        differentiable = False

        def forward(self, image: Tensor) -> Tensor:
            return torch.from_numpy(image[..., 1::2, 1::2].detach().numpy().copy()) * 9

    image = Image.from_array(torch.randn(1, 8, 8), spacing=1.0)
    occlusion = {"name": "occlusion", "fill": 0}
    for target in (
        {"kind": "region", "label": 1, "mask": torch.ones(8, 8)},
        {"kind": "volume", "label": 1},
    ):
        with pytest.raises(TargetError, match="the geometry of this network is unknown"):
            explain(Gathered(), image, occlusion, target)
    explain(Gathered(), image, occlusion, {"kind": "class_score", "label": 1})
    said = predict(Gathered(), image, {"kind": "class_score", "label": 1})
    assert (said.labels, dict(said.volumes)) == (None, {})
