"""XRAI: of any map, in 2-D and 3-D, with computed or given segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import images, untouched
from saliency.core.xrai import XRAI, XRAIParameters
from scipy.stats import spearmanr
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.attribution.methods.xrai import rank_segments
from voxplain.errors import ConfigError
from voxplain.image import Grid, Image
from voxplain.regions import scales

CLASS_ONE = {"kind": "class_score", "label": 1}


def lesion(shape: tuple[int, ...]) -> Tensor:
    """A ball away from the middle."""
    axes = torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij")
    centers = [size * 0.65 for size in shape]
    away = sum((axis - at) ** 2 for axis, at in zip(axes, centers, strict=True))
    return torch.as_tensor(away <= (min(shape) / 6) ** 2)


def phantom(shape: tuple[int, ...], channels: int = 1) -> Tensor:
    """``(1, C, *spatial)``: a lesion on smooth structure and a little noise."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, channels, *(4,) * len(shape), generator=generator)
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    smooth = 0.4 * nn.functional.interpolate(coarse, size=shape, mode=mode)
    return smooth + lesion(shape) + 0.02 * torch.randn(1, channels, *shape, generator=generator)


class Bright(nn.Module):
    """The sum of intensities above that of tissue."""

    def forward(self, x: Tensor) -> Tensor:
        score = torch.relu(x - 0.7).flatten(1).sum(dim=1)
        return torch.stack([-score, score], dim=1)


def pooled(rank: int, channels: int) -> nn.Sequential:
    """A classifier for images of any size."""
    torch.manual_seed(rank + channels)
    conv, pool = (
        (nn.Conv2d, nn.AdaptiveAvgPool2d) if rank == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    )
    features = nn.Sequential(conv(channels, 6, 3, padding=1), nn.SiLU(), conv(6, 6, 3), nn.ReLU())
    return nn.Sequential(*features, pool(2), nn.Flatten(), nn.Linear(6 * 2**rank, 3)).eval()


def xrai(network: nn.Module, image: Tensor | Image, **parameters: Any) -> Attribution:
    attributions = explain(
        network, image, {"name": "xrai", "label": "map", **parameters}, CLASS_ONE
    )
    return attributions["map"]


@pytest.mark.parametrize("shape", [(48, 40), (28, 24, 26)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["full", "fast"])
def test_the_first_region_is_the_planted_lesion(
    shape: tuple[int, ...], channels: int, mode: str
) -> None:
    image, inside = phantom(shape, channels), lesion(shape)
    values = xrai(Bright(), image, mode=mode, of="input_x_gradient").map[0, 0]
    first = values == values.max()
    assert (first & inside).sum() / first.sum() > 0.8
    best = values >= values.flatten().sort(descending=True).values[inside.sum() - 1]
    dice = 2 * (best & inside).sum() / (best.sum() + inside.sum())
    assert dice > 0.7


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_the_default_is_that_of_pair(mode: str) -> None:
    """PAIR's integrated gradients and ranking, on our segments."""
    network, image = pooled(2, 3), images(2, 3, 1, size=40).clamp(-1, 1)  # one range for all
    segments = scales(image[0])
    masks = [np.isin(segments.cells.numpy(), row.indices) for row in segments.members]

    def call(batch: Any, **_: Any) -> dict[str, Any]:
        x = torch.from_numpy(np.moveaxis(np.asarray(batch), -1, 1)).float().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
        return {"INPUT_OUTPUT_GRADIENTS": np.moveaxis(gradient.numpy(), 1, -1)}

    parameters = XRAIParameters(steps=100, algorithm=mode)
    parameters.experimental_params["min_pixel_diff"] = 8
    pixels = np.moveaxis(image[0].numpy(), 0, -1)
    wanted = XRAI().GetMask(
        pixels,
        lambda batch, call_model_args=None, expected_keys=None: call(batch),
        segments=masks,
        batch_size=50,
        extra_parameters=parameters,
    )
    inner = {"name": "integrated_gradients_black_white", "steps": 64}
    actual = xrai(network, image, mode=mode, of=inner, minimum=8 / 1600).map[0, 0].numpy()
    assert spearmanr(actual.ravel(), wanted.ravel()).statistic > 0.99


def test_given_segments_are_used_as_they_are() -> None:
    image = images(2, 2, 1, size=8)
    labels = torch.arange(4).repeat_interleave(2).view(8, 1).expand(8, 8)
    network = pooled(2, 2)
    base = explain(network, image, "saliency", CLASS_ONE)["saliency"].map[0].amax(dim=0)
    by_hand = base.view(4, 2, 8).mean(dim=(1, 2)).repeat_interleave(2).view(8, 1).expand(8, 8)
    for given in (labels[None], torch.stack([labels == each for each in range(4)]).numpy()):
        actual = xrai(network, image, of="saliency", segments=given).map
        assert torch.allclose(actual[0, 0], by_hand, atol=1e-7)


def test_segments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(4, 4\) do not lie on an image of shape \(8, 8\)"):
        xrai(pooled(2, 1), images(2, 1, 1, size=8), segments=np.zeros((1, 4, 4), int))


@pytest.mark.parametrize("rank", [2, 3])
def test_of_a_smoothed_map_its_mean_over_copies_is_divided(rank: int) -> None:
    network, image = pooled(rank, 1), images(rank, 1, 1, size=12)
    noisy = {"name": "smoothgrad", "samples": 4}
    outside = xrai(network, image, of={**noisy, "of": "saliency"}).map
    mean = explain(network, image, {**noisy, "of": "saliency", "label": "mean"}, CLASS_ONE)["mean"]
    largest = mean.map[0].amax(dim=0)
    by_hand = rank_segments(largest, scales(image[0]), round(0.001 * largest.numel()))
    assert torch.allclose(outside[0, 0].double(), by_hand.map, atol=1e-8)


def test_a_smoothed_map_of_regions_is_flat_on_every_segment() -> None:
    network, image = pooled(2, 1), images(2, 1, 1, size=12)
    blocks = (torch.arange(12) // 3).view(12, 1).expand(12, 12)
    inner = {"name": "xrai", "of": "saliency", "segments": blocks[None]}
    noisy = {"name": "smoothgrad", "samples": 4, "of": inner, "label": "map"}
    values = explain(network, image, noisy, CLASS_ONE)["map"].map[0, 0]
    assert len(values.unique()) == 4
    assert torch.equal(values[::3, :1].repeat_interleave(3, dim=0).expand(12, 12), values)


def test_sums_over_regions_claim_no_completeness() -> None:
    attribution = xrai(pooled(2, 2), images(2, 2, 1, size=12))
    assert attribution[0].sidecar.method == "xrai"
    assert attribution[0].sidecar.completeness is None


def test_of_a_cam_on_the_image_grid_and_never_of_a_layer() -> None:
    network, image = pooled(3, 1), images(3, 1, 1)
    with untouched(network):
        attributions = explain(network, image, {"name": "xrai", "of": "grad_cam"}, CLASS_ONE)
    assert attributions["xrai_grad_cam"].map.shape == image.shape
    for inner in ("layer_grad_cam", {"name": "smoothgrad", "of": "layer_conductance"}):
        with pytest.raises(ConfigError, match="map of a layer"):
            explain(network, image, {"name": "xrai", "of": inner}, CLASS_ONE)


def test_a_volume_of_one_slice_is_the_slice() -> None:
    flat = phantom((40, 36))
    single = flat.unsqueeze(2)
    parameters: dict[str, Any] = {"of": "input_x_gradient"}
    assert torch.equal(
        xrai(Bright(), single, **parameters).map[:, :, 0], xrai(Bright(), flat, **parameters).map
    )


def test_the_sidecar_lists_the_regions_by_rank() -> None:
    image = Image(phantom((30, 30))[0], Grid.default((30, 30), 2.0))
    attribution = xrai(Bright(), image, of="input_x_gradient")
    regions = attribution.sidecar.findings["regions"]
    assert [region["rank"] for region in regions] == [*range(1, len(regions) + 1)]
    values = [region["value"] for region in regions]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(float(attribution.map.max()))
    assert regions[0]["voxels"] == int((attribution.map == attribution.map.max()).sum())


def test_regions_of_absolute_maps_are_positive_and_say_so() -> None:
    attribution = xrai(pooled(2, 1), images(2, 1, 1), of={"name": "saliency", "abs": True})
    assert attribution[0].sidecar.sign == "absolute"
    assert float(attribution.map.min()) >= 0


def test_the_batch_is_each_alone() -> None:
    network, batch = pooled(2, 2), images(2, 2, 3, size=16)
    together = xrai(network, batch, of="input_x_gradient").map
    alone = [xrai(network, image[None], of="input_x_gradient").map for image in batch]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
