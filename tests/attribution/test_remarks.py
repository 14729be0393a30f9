"""What a map says of itself: zero maps, and maps whose sum is not the change of the score."""

from __future__ import annotations

import pytest
import torch
from networks import classifier, images
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain


class Thresholded(nn.Module):
    """A score that jumps where no gradient sees it."""

    def forward(self, image: Tensor) -> Tensor:
        score = (0.1 * image + (image > 0.5)).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


class Bending(nn.Module):
    """sum relu(x - 1/2): 2 Gauss nodes miss the bend."""

    def forward(self, image: Tensor) -> Tensor:
        score = (image - 0.5).relu().flatten(1).sum(1)
        return torch.stack([-score, score], 1)


def _said(found: Attribution) -> str:
    return "; ".join(found.stats.warnings)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_zero_map_makes_no_claim_about_the_score(rank: int) -> None:
    network, image = classifier(rank), images(rank, 1, 1)
    with torch.no_grad():
        network.head.weight.copy_(-network.head.weight.abs())
    methods = [{"name": "grad_cam", "layer": "act2"}, {"name": "input_x_gradient"}]
    for method, shown in zip(methods, (image, torch.zeros_like(image)), strict=True):
        found = explain(network, shown, method, 1)[method["name"]]
        assert not found.map.any()
        assert explain(network, shown, "saliency", 1)["saliency"].map.any()
        assert "the map is zero everywhere" in _said(found)
        assert "need not mean that the score ignores the image" in _said(found)
        assert ("its ReLU left nothing" in _said(found)) == (method["name"] == "grad_cam")


def test_an_image_that_is_its_baseline_is_complete() -> None:
    shown = torch.zeros_like(images(2, 1, 1))
    found = explain(classifier(), shown, "integrated_gradients", 1)["integrated_gradients"]
    assert found.stats.completeness == (0.0,)
    assert "completeness" not in _said(found)


def test_a_sum_that_is_not_the_change_of_the_score_is_told() -> None:
    image = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = explain(Thresholded(), image, "integrated_gradients", 1)["integrated_gradients"]
    share = float(found.map.sum()) / float(Thresholded()(image)[0, 1])
    assert f"the map sums to {share:.1%} of the change of the score" in _said(found)
    assert f"completeness is off by {1 - share:.1%}, which more than 32 steps may mend" in _said(
        found
    )
    right = explain(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), image, "integrated_gradients", 1)
    assert "completeness" not in _said(right["integrated_gradients"])


def test_a_batch_says_which_image() -> None:
    batch = torch.rand(2, 1, 6, 6)
    batch[0] *= 0.4  # no voxel of it passes the threshold
    found = explain(Thresholded(), batch, "integrated_gradients", 1)["integrated_gradients"]
    assert "the map of image 1 sums to" in _said(found)
    assert "image 0" not in _said(found)


def test_the_flow_through_a_layer_is_told_where_it_is_not_the_whole() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.layer.weight)

        def forward(self, image: Tensor) -> Tensor:
            score = (self.layer(image) + image).flatten(1).sum(1)
            return torch.stack([-score, score], 1)

    method = {"name": "layer_conductance", "layers": ["layer"]}
    (found,) = explain(Skipping(), torch.rand(1, 1, 4, 4), method, 1).values()
    assert "the map sums to 50.0% of the change" in _said(found)
    assert "other paths bypass layer 'layer'" in _said(found)


@pytest.mark.parametrize("rank", [2, 3])
def test_steps_are_added_until_the_sum_is_complete(rank: int) -> None:
    image = torch.rand(3, 1, *(6, 5, 4)[:rank], generator=torch.Generator().manual_seed(0)) + 0.6
    image[1] *= 0.9
    auto = {"name": "integrated_gradients", "steps": "auto"}
    found = explain(Bending(), image, auto, 1)["integrated_gradients"]
    assert max(found.stats.completeness or ()) <= 0.01
    assert not found.stats.warnings
    for row in range(3):  # alone as in a batch
        alone = explain(Bending(), image[row : row + 1], auto, 1)["integrated_gradients"]
        assert torch.allclose(alone.map[0], found.map[row], atol=1e-6)
    few = explain(Bending(), image, {"name": "integrated_gradients", "steps": 2}, 1)
    assert max(few["integrated_gradients"].stats.completeness or ()) > 0.05


def test_refined_nodes_are_those_of_the_trapezoid_rule() -> None:
    """Halving adds points, and the sum is that of the whole rule."""

    class Steep(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            score = (image**60).flatten(1).sum(1)
            return torch.stack([-score, score], 1)

    image = torch.tensor([[[[1.0, 0.97, 0.9, 0.99]]]], dtype=torch.float64)
    auto = explain(Steep(), image, {"name": "integrated_gradients", "steps": "auto"}, 1)
    found = auto["integrated_gradients"]
    assert found.stats.passes == 257
    same = {
        "name": "integrated_gradients",
        "steps": found.stats.passes,
        "quadrature": "trapezoid",
    }
    rule = explain(Steep(), image, same, 1)["integrated_gradients"]
    assert torch.allclose(found.map, rule.map, rtol=1e-10)


def test_steps_that_do_not_suffice_are_told() -> None:
    image = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    auto = {"name": "integrated_gradients", "steps": "auto"}
    found = explain(Thresholded(), image, auto, 1)["integrated_gradients"]
    assert found.stats.passes == 1025
    assert "more than the 1% that were looked for" in _said(found)


def test_auto_has_its_own_quadrature() -> None:
    auto = {"name": "integrated_gradients", "steps": "auto", "quadrature": "left"}
    with pytest.raises(Exception, match="leave quadrature out"):
        explain(classifier(), images(), auto, 1)
