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


PATHS = ("guided_integrated_gradients", "blur_integrated_gradients")
PATHS_AT_LAYERS = ("layer_integrated_gradients", "layer_conductance")


class Steep(nn.Module):
    """A layer between two bends, which few points on a path miss."""

    def __init__(self, rank: int, scale: float = 3.0) -> None:
        super().__init__()
        self.scale = scale
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.layer = convolution(1, 2, 1).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([1.0, -0.5]).view(2, 1, *(1,) * rank))
            self.layer.bias.copy_(torch.tensor([-0.4, 0.1]))

    def forward(self, image: Tensor) -> Tensor:
        values = self.scale * self.layer(image.relu().pow(3))
        score = values.sigmoid().pow(2).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", [*PATHS, *PATHS_AT_LAYERS])
def test_every_path_adds_steps_until_its_sum_is_complete(name: str, rank: int) -> None:
    source = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, *(6, 5, 4)[:rank], generator=source, dtype=torch.float64) * 3
    layer = {"layers": "layer"} if name in PATHS_AT_LAYERS else {}
    found = explain(Steep(rank), image, {"name": name, "steps": "auto", **layer}, 1)[name]
    stats = found.stats
    residuals = [abs(1 - flow) for flow in stats.flow or ()] or stats.completeness
    assert residuals
    assert max(residuals) <= 0.01
    assert not stats.warnings
    for row in range(2):  # alone as in a batch
        one = image[row : row + 1]
        alone = explain(Steep(rank), one, {"name": name, "steps": "auto", **layer}, 1)[name]
        assert torch.allclose(alone.map[0], found.map[row], atol=1e-9)
    few = explain(Steep(rank), image, {"name": name, "steps": 2, **layer}, 1)[name]
    assert "of the change of the score" in _said(few)


def test_black_and_white_refine_each_path() -> None:
    """Their mean is that of the two paths, each with the steps that it needs."""
    source = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 6, 5, generator=source, dtype=torch.float64) * 3
    name = "integrated_gradients_black_white"
    auto = explain(Steep(2, 30), image, {"name": name, "steps": "auto"}, 1)[name]
    path = {"name": "integrated_gradients", "steps": "auto"}
    ends = [{**path, "baseline": end, "label": end} for end in ("minimum", "maximum")]
    parts = explain(Steep(2, 30), image, ends, 1)
    mean = (parts["minimum"].map + parts["maximum"].map) / 2
    assert torch.allclose(auto.map, mean, rtol=1e-12)
    assert auto.stats.passes == sum(part.stats.passes for part in parts.values()) > 34


@pytest.mark.parametrize(
    "method",
    [
        {"name": "layer_conductance", "layers": "layer", "quadrature": "left"},
        {"name": "guided_integrated_gradients"},
        {"name": "blur_integrated_gradients"},
    ],
)
def test_a_doubled_path_ends_with_the_map_of_its_last_steps(method: dict[str, object]) -> None:
    source = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 6, 5, generator=source, dtype=torch.float64) * 3
    (auto,) = explain(Steep(2), image, {**method, "steps": "auto"}, 1).values()
    ends = 0 if "layers" in method else 1
    steps, passes = 16, 16 + ends
    while passes < auto.stats.passes:
        steps *= 2
        passes += steps + ends
    assert passes == auto.stats.passes
    assert steps > 16
    (fixed,) = explain(Steep(2), image, {**method, "steps": steps}, 1).values()
    assert torch.equal(auto.map, fixed.map)
    (half,) = explain(Steep(2), image, {**method, "steps": steps // 2}, 1).values()
    share = half.stats.flow[0] if half.stats.flow else 1 - half.stats.completeness[0]  # type: ignore[index]
    assert abs(1 - share) > 0.01


def test_a_bypassed_layer_ends_where_its_sum_no_longer_changes() -> None:
    class Skipping(Steep):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) + torch.stack([image.flatten(1).sum(1)] * 2, 1)

    image = torch.rand(1, 1, 6, 5, dtype=torch.float64)
    for name in PATHS_AT_LAYERS:
        (found,) = explain(
            Skipping(2), image, {"name": name, "layers": "layer", "steps": "auto"}, 1
        ).values()
        assert found.stats.passes < 300
        assert _said(found).endswith("other paths bypass layer 'layer'")


def test_a_contrast_of_a_path_has_its_limit() -> None:
    image = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    auto = {"name": "integrated_gradients", "steps": "auto"}
    method = {"name": "contrast_map", "of": auto, "against": 0}
    (found,) = explain(Thresholded(), image, method, 1).values()
    assert "more than the 1% that were looked for" in _said(found)


def test_an_influence_has_no_sum_to_look_at() -> None:
    with pytest.raises(Exception, match="steps"):
        explain(classifier(), images(), {"name": "internal_influence", "steps": "auto"}, 1)
