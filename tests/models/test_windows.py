"""Windows: positions, blending weights, and agreement with MONAI."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from networks import assert_close
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import ConfigError, ModelError
from voxplain.models.model import Model
from voxplain.models.windows import Layout, Window

VOLUMES = [((20,), 8), ((17, 23), 8), ((9, 14, 11), (4, 6, 5)), ((6, 6, 6), 6)]
WINDOWS: list[dict[str, Any]] = [
    {"overlap": 0.5},
    {"overlap": 0.25, "blend": "constant"},
    {"overlap": 0.0},
    {"overlap": 0.75, "halo": 1},
    {"overlap": 0.3, "halo": 1, "blend": "constant"},
]


def layout(shape: tuple[int, ...], size: Any, **options: Any) -> Layout:
    return Window(size=size, **options).layout(shape)


@pytest.mark.parametrize(("shape", "size"), VOLUMES)
@pytest.mark.parametrize("options", WINDOWS)
class TestLayout:
    def test_weights_sum_to_one_everywhere(
        self, shape: tuple[int, ...], size: Any, options: dict[str, Any]
    ) -> None:
        windows = layout(shape, size, **options)
        total = torch.zeros(windows.padded, dtype=torch.float64)
        for position in windows.positions:
            total[windows.region(position)] += windows.weight(position)
            assert (windows.weight(position) >= 0).all()
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-14, atol=0)

    def test_windows_lie_inside_and_reach_both_ends(
        self, shape: tuple[int, ...], size: Any, options: dict[str, Any]
    ) -> None:
        windows = layout(shape, size, **options)
        for axis, length, side in zip(windows.axes, windows.padded, windows.size, strict=True):
            assert axis.starts[0] == 0
            assert axis.starts[-1] == length - side
            steps = [b - a for a, b in itertools.pairwise(axis.starts)]
            assert all(step > 0 for step in steps)
            inner = side - 2 * options.get("halo", 0)
            assert all(step <= max(1, int(inner * (1 - options["overlap"]))) for step in steps)
        assert len(windows) == math.prod(len(axis.starts) for axis in windows.axes)
        assert [position for batch in windows.batches(3) for position in batch] == list(
            windows.positions
        )

    def test_the_identity_network_comes_back(
        self, shape: tuple[int, ...], size: Any, options: dict[str, Any]
    ) -> None:
        model = Model(nn.Identity(), window={"size": size, **options, "batch": 2})
        image = torch.randn(2, 3, *shape)
        torch.testing.assert_close(model.output(image), image)


def test_halo_gives_context_only() -> None:
    """Its outputs are not used, except at the border of the volume."""
    windows = layout((20, 8), (8, 8), halo=(2, 0), overlap=0.0)
    for position in windows.positions:
        weight = windows.weight(position)
        start = windows.axes[0].starts[position[0]]
        assert bool(weight[:2].any()) is (start == 0)
        assert bool(weight[-2:].any()) is (start == 12)
        assert weight[2:-2].all()


def test_a_halo_as_large_as_the_receptive_field_makes_windows_exact() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    image = torch.randn(1, 1, 30, 26)
    for blend in ("gaussian", "constant"):
        model = Model(network, window={"size": 14, "halo": 3, "overlap": 0.25, "blend": blend})
        torch.testing.assert_close(model.output(image), network(image).detach())
    without = Model(network, window={"size": 14, "halo": 0, "overlap": 0.25})
    assert not torch.allclose(without.output(image), network(image), atol=1e-3)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_agrees_with_monai(rank: int, mode: str, overlap: float) -> None:
    """MONAI too shifts the last window to the end; it raises the floor of the product of the bells
    and not of each bell, so its weight map is stated here.
    """
    inferer = pytest.importorskip("monai.inferers").sliding_window_inference
    torch.manual_seed(rank)
    network = nn.Sequential(
        getattr(nn, f"Conv{rank}d")(2, 3, 3, padding=1), nn.ReLU(),
        getattr(nn, f"Conv{rank}d")(3, 2, 3, padding=1),
    )  # fmt: skip
    image = torch.randn(1, 2, *(18, 15, 13)[:rank])
    bell = torch.exp(-0.5 * (torch.arange(8) - 3.5) ** 2)  # sigma 8/8
    weights = {"gaussian": bell, "constant": torch.ones(8)}[mode]
    for _ in range(rank - 1):
        weights = weights[..., None] * (bell if mode == "gaussian" else torch.ones(8))
    with torch.no_grad():
        expected = inferer(image, (8,) * rank, 4, network, overlap=overlap, roi_weight_map=weights)
    model = Model(network, window={"size": 8, "overlap": overlap, "blend": mode, "batch": 3})
    torch.testing.assert_close(model.output(image), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_extents_of_windows() -> None:
    assert layout((20, 40), 0.5).size == (10, 20)
    assert Window(size="16mm").layout((20, 40), (2.0, 4.0)).size == (8, 4)
    assert layout((20, 40), (8, 0.25)).size == (8, 10)
    with pytest.raises(ConfigError, match="'16mm' needs the pixel size of the image"):
        layout((20, 40), "16mm")
    with pytest.raises(
        ConfigError, match=r"window of \(4, 4\) voxels has nothing left inside a halo"
    ):
        layout((20, 20), 4, halo=2)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 8, "overlap": 1.0}, {"size": 8, "overlap": -0.1}, {"size": 8, "blend": "mean"},
     {"size": "8cm"}, {"size": -8}, {"size": 8, "batch": 0}, {"size": 8, "halos": 2}, {}],
)  # fmt: skip
def test_invalid_windows_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Window.model_validate(wrong)


def test_padding_at_the_far_end() -> None:
    windows = layout((5, 12), 8)
    assert (windows.padded, windows.is_padded) == ((8, 12), True)
    volume = torch.randn(3, 5, 12)
    padded = windows.pad(volume)
    assert padded.shape == (3, 8, 12)
    assert torch.equal(windows.unpad(padded), volume)
    assert not padded[:, 5:].any()
    whole = layout((9, 12), 8)
    assert not whole.is_padded
    assert whole.pad(volume) is volume


def test_redundancy_is_how_many_windows_see_a_voxel() -> None:
    windows = layout((16, 12), 8, overlap=0.5)
    windows_per_voxel = torch.zeros(16, 12)
    for position in windows.positions:
        windows_per_voxel[windows.region(position)] += 1
    assert windows.redundancy == pytest.approx(float(windows_per_voxel.mean()))


@pytest.mark.parametrize("rank", [2, 3])
def test_networks_with_another_output_size_are_refused(rank: int) -> None:
    shrinks = getattr(nn, f"Conv{rank}d")(1, 2, 3)
    with pytest.raises(
        ModelError, match="sliding windows need an output of the size of the window"
    ):
        Model(shrinks, window={"size": 6}).output(torch.zeros(1, 1, *(9,) * rank))


class PatchScores(nn.Module):
    """A classifier of windows: two scores that are not linear in the window."""

    def forward(self, image: Tensor) -> Tensor:
        total = image.flatten(1).sum(1)
        return torch.stack([total.sin(), total.square()], dim=1)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_scores_of_windows_make_a_grid_of_scores(rank: int, overlap: float) -> None:
    """The grid, its gradient and the drop without a part, against a loop over the windows."""
    sides = (6, 4, 8)[:rank]
    image = torch.rand(1, 1, *sides, dtype=torch.float64, requires_grad=True)
    model = Model(
        PatchScores().double(), window={"size": 4, "overlap": overlap, "blend": "constant"}
    )
    layout = model.layout(sides)
    assert layout is not None

    def grid(volume: Tensor) -> Tensor:
        padded = layout.pad(volume[0])
        scores, counts = torch.zeros(2, *layout.padded).double(), torch.zeros(layout.padded)
        for position in layout.positions:
            window = padded[layout.region(position)]
            total = window.sum()
            here = torch.zeros_like(scores)
            here[layout.region(position)] = 1
            both = torch.stack([total.sin(), total.square()]).view(2, *(1,) * rank)
            scores = scores + here * both
            counts[layout.region(position)] += 1
        return layout.unpad(scores / counts)[None]

    expected = grid(image)
    assert_close(model.output(image.detach()), expected.detach(), 1e-12)
    voxel = tuple(side // 2 for side in sides)
    score = expected[(0, 1, *voxel)]
    (gradient,) = torch.autograd.grad(score, image)
    target = {"kind": "region", "label": 1, "voxel": voxel}
    methods = ["saliency", {"name": "occlusion", "window": 2, "stride": 2, "fill": 0.0}]
    maps = explain(model, image.detach(), methods, target)
    assert_close(maps["saliency"].map, gradient, 1e-9)
    without = image.detach().clone()
    without[(..., *(slice(0, 2) for _ in sides))] = 0
    drop = score.detach() - grid(without)[(0, 1, *voxel)]
    assert float(maps["occlusion"].map[(0, 0, *(0,) * rank)]) == pytest.approx(float(drop))
