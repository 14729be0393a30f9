"""Windows: positions, blending weights, and agreement with MONAI."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import assert_close
from scipy import ndimage
from torch import Tensor, nn

import voxplain as vx
import voxplain.targets
from voxplain.attribution import explain
from voxplain.errors import ConfigError, ModelError
from voxplain.models.layout import Layout
from voxplain.models.model import Model
from voxplain.models.output_place import OutputPlace
from voxplain.models.windows import Window

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


def network_of(rank: int) -> nn.Module:
    """One whose output depends on where its input is cut."""
    conv, mode = getattr(nn, f"Conv{rank}d"), {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    torch.manual_seed(rank)
    return nn.Sequential(
        conv(2, 3, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode),
        conv(3, 2, 3, padding=1),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.6, 0.8])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((16, 16), (8, 8)), ((17, 13), (8, 6)), ((5, 21), (8, 8)), ((18, 15, 13), (8, 8, 8)),
     ((12, 9, 7), (12, 6, 8)), ((5, 6, 3), (8, 8, 8)), ((13,), (6,)), ((11, 9, 6), (4, 6, 10))],
)  # fmt: skip
def test_outputs_are_those_of_monai(
    shape: tuple[int, ...], size: tuple[int, ...], overlap: float, mode: str
) -> None:
    inferer = pytest.importorskip("monai.inferers").sliding_window_inference
    network = network_of(len(shape))
    image = torch.randn(2, 2, *shape)
    with torch.no_grad():
        expected = inferer(image, size, 3, network, overlap=overlap, mode=mode)
    model = Model(network, window={"size": size, "overlap": overlap, "blend": mode, "batch": 2})
    torch.testing.assert_close(model.output(image), torch.as_tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(5, 13), (9, 5, 6)])
def test_padding_and_its_gradient_are_those_of_monai(
    shape: tuple[int, ...], mode: str, padding: str
) -> None:
    inferer = pytest.importorskip("monai.inferers").sliding_window_inference
    network, rank = network_of(len(shape)), len(shape)
    image = torch.randn(1, 2, *shape, requires_grad=True)
    expected = inferer(image, (8,) * rank, 1, network, 0.5, mode=mode, padding_mode=padding)
    window = {"size": 8, "blend": mode, "padding": padding}
    model = Model(network, window=window)
    torch.testing.assert_close(model.output(image), expected, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(expected[:, 1].square().sum(), image)
    with pytest.warns(match="half on either side"):
        found = vx.explain(model, image.detach(), "saliency", Squares())["saliency"].map
    torch.testing.assert_close(found, gradient, rtol=0, atol=1e-4)


class Squares(vx.targets.Target):
    """The sum of the squares of class 1, bound anew at each output; its gradient is 2 F."""

    kind: str = "squares"

    def _field(self, unperturbed: vx.targets.UnperturbedOutput) -> vx.targets.WeightField:
        weights = 2 * unperturbed.output
        weights[:, 0] = 0
        offset = weights.new_zeros(len(weights))
        return vx.targets.WeightField((vx.targets.Term(weights),), offset, ("squares",))


def nnunet_steps(length: int, side: int, share: float) -> list[int]:
    """Where nnU-Net puts its windows along an axis."""
    count = int(np.ceil((length - side) / (side * share))) + 1
    distance = (length - side) / (count - 1) if count > 1 else 0
    return [int(np.round(distance * index)) for index in range(count)]


@pytest.mark.parametrize("overlap", [0.5, 0.3])
@pytest.mark.parametrize(
    ("shape", "size"), [((11, 9), (6, 4)), ((20, 8, 4), (8, 6, 4)), ((30, 12, 33), (12, 12, 14))]
)
def test_weights_and_positions_of_nnunet(
    shape: tuple[int, ...], size: tuple[int, ...], overlap: float
) -> None:
    """Written down as it computes them: a filtered impulse times 10 in half precision."""
    impulse = np.zeros(size)
    impulse[tuple(side // 2 for side in size)] = 1
    bell = ndimage.gaussian_filter(impulse, [side / 8 for side in size], 0, mode="constant", cval=0)
    half = torch.from_numpy(bell / bell.max() * 10).half()
    half[half == 0] = half[half != 0].min()
    weights = half.float()
    network = network_of(len(shape))
    image = torch.randn(1, 2, *shape)
    total, count = torch.zeros(1, 2, *shape), torch.zeros(shape)
    axes = [nnunet_steps(*axis, 1 - overlap) for axis in zip(shape, size, strict=True)]
    for starts in itertools.product(*axes):
        box = tuple(slice(a, a + side) for a, side in zip(starts, size, strict=True))
        with torch.no_grad():
            total[(..., *box)] += network(image[(..., *box)]) * weights
        count[box] += weights
    model = Model(network, window={"size": size, "overlap": overlap, "blend": "nnunet"})
    torch.testing.assert_close(model.output(image), total / count, rtol=0, atol=1e-5)


@pytest.mark.parametrize("blend", ["gaussian", "constant", "nnunet"])
@pytest.mark.parametrize("padding", ["constant", "replicate"])
@pytest.mark.parametrize(
    ("shape", "size"), [((14, 12), 7), ((14, 6), 7), ((9, 12, 8), 7), ((5, 9, 13), (7, 9, 6))]
)
def test_valid_convolutions_in_windows_are_those_of_the_whole(
    shape: tuple[int, ...], size: Any, padding: str, blend: str
) -> None:
    """Each output depends on its receptive field alone, which lies inside a window."""
    conv = getattr(nn, f"Conv{len(shape)}d")
    torch.manual_seed(0)
    network = nn.Sequential(conv(1, 3, 3), nn.ReLU(), conv(3, 2, (2, *(1,) * (len(shape) - 1))))
    image = torch.randn(1, 1, *shape)
    window = {"size": size, "overlap": 0.3, "blend": blend, "padding": padding}
    model = Model(network.eval(), window=window)
    layout = model.layout(image[0])
    assert layout is not None
    padded = layout.pad(image)
    with torch.no_grad():
        whole = network(padded)
    filled = torch.zeros(1, 2, *layout.padded)
    filled[(..., *(slice(1, 1 + side) for side in whole.shape[2:]))] = whole
    place = layout.place
    inner = zip(place.start, place.cells, strict=True)
    box = tuple(slice(math.floor(start), math.floor(start) + cells) for start, cells in inner)
    expected = layout.unpad(filled)[(..., *box)]
    torch.testing.assert_close(model.output(image), expected, rtol=0, atol=1e-6)


def test_where_padding_lies_and_what_windows_cover() -> None:
    place = OutputPlace((1, 2), (1, 1), (3, 2), (6, 6))
    found = Window(size=6).layout((5, 12), place=place)
    assert found.image_box == (slice(0, 5), slice(0, 12))  # of one voxel, the half before is 0
    assert found.covered == (slice(1, 4), slice(2, 10))
    assert found.outputs.grid == found.place.cells == (3, 8)
    assert found.inside.sum(1).tolist() == [0, 8, 8, 8, 0, 0]
    assert {*found.over((slice(0, 1), slice(0, 1)))} == {(0, 0)}
    assert not [*found.over((slice(2, 2), slice(0, 12)))]
    with pytest.raises(ConfigError, match="nothing left inside what its output does not cover"):
        Window(size=6).layout((5, 12), place=OutputPlace((3, 2), (1, 1), (0, 2), (6, 6)))
    with pytest.raises(ModelError, match="no output inside a volume"):
        Window(size=8).layout((1, 12), place=OutputPlace((4, 2), (1, 1), (2, 4), (8, 8)))


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


def test_padding_half_on_either_side() -> None:
    windows = layout((5, 12), 8)
    assert (windows.padded, windows.is_padded) == ((8, 12), True)
    volume = torch.randn(3, 5, 12)
    padded = windows.pad(volume)
    assert padded.shape == (3, 8, 12)
    assert torch.equal(padded[:, 1:6], volume)
    assert torch.equal(windows.unpad(padded), volume)
    assert not padded[:, :1].any()
    assert not padded[:, 6:].any()
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
def test_networks_whose_output_has_no_known_place_are_refused(rank: int) -> None:
    class Gathered(nn.Module):
        differentiable = False

        def forward(self, image: Tensor) -> Tensor:
            return torch.from_numpy(image[..., 1::2].detach().numpy().copy())

    model = Model(Gathered(), window={"size": 6})
    with pytest.raises(ModelError, match=r"maps windows of .* whose place in the window is unk"):
        model.output(torch.zeros(1, 1, *(9,) * rank))
    turned = Model(Flipped(), window={"size": 6})
    with pytest.raises(ModelError, match="turns the image around"):
        turned.output(torch.zeros(1, 1, *(9,) * rank))


class Flipped(nn.Module):
    """A smaller output in the other order."""

    def forward(self, image: Tensor) -> Tensor:
        return image[..., 1:].flip(-1)


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
    layout = model.layout(image.detach()[0])
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


def test_the_example_of_an_image_in_windows_is_its_middle_window() -> None:
    """Corners are often empty, and tell nothing of how a network behaves."""
    image = torch.arange(2 * 13 * 13.0).view(1, 2, 13, 13)
    windows = layout((13, 13), 5, overlap=0.0)
    assert torch.equal(windows.example(image[0]), image[..., 5:10, 5:10])
