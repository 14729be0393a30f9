"""LIME and the piecewise linear surrogate against closed forms."""

from __future__ import annotations

import pytest
import torch
from networks import Linear, assert_close, images
from players import Game, played, values
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import ConfigError
from voxplain.regions import Blocks


@pytest.mark.parametrize("distance", ["coalition", "image"])
@pytest.mark.parametrize("shape", [(9, 8), (6, 4, 5)])
def test_lime_recovers_a_linear_score(distance: str, shape: tuple[int, ...]) -> None:
    """The coefficient of a region is what it adds: sum of w (x - fill) over it."""
    image = images(len(shape), 2, 1, 12).double()[(..., *(slice(0, side) for side in shape))]
    network = Linear(tuple(image.shape[1:])).double()
    method = {"name": "lime", "regions": {"kind": "blocks", "size": 2}, "fill": 0.3}
    result = explain(
        network,
        image,
        {**method, "penalty": 0, "distance": distance},
        {"kind": "class_score", "label": 1},
    )["lime"][0]
    labels = Blocks(size=2).divide(image[0], None, None)
    effect = ((image[0] - 0.3) * network.weight.detach()).sum(dim=0).flatten()
    expected = labels.painted(torch.bincount(labels.labels.flatten(), effect))
    assert_close(result.map[0], expected, 1e-8)
    assert result.stats.findings[0]["r2"] == pytest.approx(1)
    with torch.no_grad():
        empty = float(network(torch.full_like(image, 0.3))[0, 0])
    assert result.stats.findings[0]["intercept"] == pytest.approx(empty)


def test_the_penalty_makes_coefficients_smaller_and_the_lasso_makes_some_zero() -> None:
    weights = torch.linspace(-1, 2, 12).double()
    worth = lambda kept: kept @ weights  # noqa: E731
    free = torch.tensor(values(worth, 12, {"name": "lime", "penalty": 0}))
    penalized = torch.tensor(values(worth, 12, {"name": "lime"}))
    sparse = torch.tensor(
        values(worth, 12, {"name": "lime", "surrogate": "lasso", "penalty": 0.1, "width": 5})
    )
    assert_close(free, weights.float(), 1e-6)
    assert float(penalized.norm()) < float(free.norm())
    assert_close(penalized, free, 0.06)
    small = weights.abs() < 0.3
    assert bool((sparse[small] == 0).all())
    assert bool((sparse[weights.abs() > 0.6] != 0).all())


def test_nearby_coalitions_count_more_for_narrow_kernels() -> None:
    """A score with a kink: its slope is 0 near the image and not 0 on average."""
    capped = lambda kept: torch.minimum(kept.sum(dim=1), torch.tensor(6.0))  # noqa: E731
    slopes = [
        sum(values(capped, 12, {"name": "lime", "width": width, "penalty": 0})) / 12
        for width in (0.05, 0.25, 5.0)
    ]
    assert slopes[0] < slopes[1] < slopes[2]
    assert slopes[0] < 0.05
    assert slopes[2] > 0.4


def test_images_cannot_be_compared_under_a_fill_that_depends_on_the_mask() -> None:
    with pytest.raises(ConfigError, match=r"lime\.distance.*take another fill"):
        explain(
            nn.Flatten(),
            torch.rand(1, 1, 4, 4),
            {"name": "lime", "distance": "image", "fill": "noise"},
            0,
        )


def test_too_few_coalitions_leave_the_even_share() -> None:
    worth = lambda kept: kept.sum(dim=1) * 2 + 1  # noqa: E731
    result = played(worth, 40, {"name": "kernel_shap", "samples": 6})
    assert result.map.flatten().tolist() == pytest.approx([2.0] * 40)
    assert result.stats.findings[0]["determined"] is False
    assert played(worth, 40, {"name": "kernel_shap"}).stats.findings[0]["determined"] is True


def test_the_piecewise_linear_part_is_exact_where_the_score_is_one() -> None:
    """Curves with bends at the levels; what a region does is the difference of its ends."""
    tent = lambda z: 3 * torch.minimum(z, 1 - z)  # noqa: E731
    ramp = lambda z: torch.relu(z - 1 / 3)  # noqa: E731

    def worth(kept: Tensor) -> Tensor:
        return tent(kept[:, 0]) + 6 * ramp(kept[:, 1]) - kept[:, 2] + 0.5

    result = played(worth, 5, {"name": "piecewise_linear_surrogate", "penalty": 0})
    # Tents meet between the levels 1/3 and 2/3, where they are 1 at both.
    assert result.map.flatten().tolist() == pytest.approx([0, 4, -1, 0, 0], abs=1e-6)
    findings = result.stats.findings[0]
    assert findings["r2_held_out_of_additive_part"] == pytest.approx(1)
    assert findings["r2_held_out"] == pytest.approx(1, abs=1e-6)
    bends = {region["name"]: region["bend"] for region in findings["regions"]}
    assert bends["region 1"] == pytest.approx(1.0, abs=1e-6)
    assert bends["region 3"] == pytest.approx(0.0, abs=1e-6)
    curves = {one["name"]: one["curve"] for one in findings["regions"]}
    assert curves["region 1"] == pytest.approx([0, 1, 1, 0], abs=1e-6)
    assert curves["region 2"] == pytest.approx([0, 0, 2, 4], abs=1e-6)
    assert findings["held_out"] == findings["coalitions"] // 4


def test_the_small_network_learns_what_regions_do_together_and_noise_does_not_fit() -> None:
    method = {"name": "piecewise_linear_surrogate", "samples": 800}

    def together(kept: Tensor) -> Tensor:
        return kept[:, 0] + 4 * kept[:, 1] * kept[:, 2]

    result = played(together, 6, method).stats.findings[0]
    assert 0.5 < result["r2_held_out_of_additive_part"] < 0.97
    assert result["r2_held_out"] > result["r2_held_out_of_additive_part"] + 0.03
    strange = torch.tensor([12.9898, 78.233, 37.719, 3.1416, 53.17, 91.33], dtype=torch.float64)
    noise = lambda kept: ((kept @ strange).sin() * 43758.5453).sin()  # noqa: E731
    assert played(noise, 6, method).stats.findings[0]["r2_held_out"] < 0.1


def test_the_surrogate_depends_on_the_seed_alone() -> None:
    rough = lambda kept: kept[:, 0] * kept[:, 1] + kept[:, 2] ** 2  # noqa: E731
    method = {"name": "piecewise_linear_surrogate", "samples": 64}
    first = played(rough, 6, method)
    torch.manual_seed(3)
    with torch.no_grad():
        again = played(rough, 6, method)
    assert torch.equal(first.map, again.map)
    assert first.stats.findings == again.stats.findings
    assert not torch.equal(first.map, played(rough, 6, method, seed=1).map)


def test_surrogates_share_nothing_with_other_games_but_their_own_coalitions() -> None:
    image = torch.rand(1, 1, 6, 6)
    network = Game(lambda kept: kept.square().sum(dim=1))
    surrogates = [{"name": "lime"}, {"name": "lime", "width": 1.0, "label": "wide"}, "kernel_shap"]
    methods = [
        {
            **({"name": surrogate} if isinstance(surrogate, str) else surrogate),
            "regions": {"kind": "blocks", "size": 2},
        }
        for surrogate in surrogates
    ]
    result = explain(network, image, methods, 0)
    assert result["lime"].stats.shared_with == ("wide",)
    assert result["kernel_shap"].stats.shared_with == ()
    alone = explain(network, image, methods[1], 0)["wide"]
    assert torch.equal(alone.map, result["wide"].map)
