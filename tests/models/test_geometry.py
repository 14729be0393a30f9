"""Positions of layer cells, against the responses of the networks to impulses."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxplain.errors import ModelError
from voxplain.models.geometry import LayerGeometry, follow_network, layer_geometry, place

Size = tuple[int, ...]
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def uniform(network: nn.Module) -> nn.Module:
    """All weights positive and equal and no norms, so that responses are symmetric."""
    network = copy.deepcopy(network).double().eval()
    norms = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, norms):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.fill_(1 / parameter[0].numel())
            elif name.endswith("bias"):
                parameter.zero_()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.fill_(1)
    return network


def measured(network: nn.Module, shape: Size, path: str, axis: int) -> Tensor:
    """The center of what each cell along an axis responds to; NaN where it sees the border.

    One image per voxel plane along the axis, all zero but for that plane.
    """
    size = shape[axis]
    images = torch.zeros(size, 1, *shape, dtype=torch.float64)
    images.movedim(axis + 2, 1)[range(size), range(size)] = 1
    caught: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda *a: caught.append(a[2]))
    with torch.no_grad():
        network(images)
    handle.remove()
    activation = caught[-1]
    other = [index for index in range(1, activation.ndim) if index != axis + 2]
    response = activation.sum(other)  # voxel planes × cells
    seen = response.abs() > 1e-12
    border = seen[:3].any(0) | seen[-3:].any(0) | ~seen.any(0)
    # Next to them are cells that would see the border but for a gap in their kernel.
    border = F.max_pool1d(border.double()[None], 5, 1, 2)[0] > 0
    positions = torch.arange(size, dtype=torch.float64)
    center = (response * positions[:, None]).sum(0) / response.sum(0)
    return torch.where(border, torch.nan, center)


def line(centers: Tensor, period: int) -> tuple[float, float]:
    """Start and stride of the mean straight line through whole periods of interior cells."""
    inner = torch.nonzero(~centers.isnan()).flatten()
    first, last = int(inner[0]), int(inner[-1])
    first += -first % period
    count = (last + 1 - first) // period * period
    assert count >= 2 * period, "the network is too small to measure"
    periods = centers[first : first + count].reshape(-1, period)
    stride = float((periods[-1] - periods[0]).mean()) / (len(periods) - 1) / period
    return float(periods.mean()) - stride * (first + (count - 1) / 2), stride


def check(
    network: nn.Module, rank: int, path: str, period: int = 1, length: int = 64, width: int = 12
) -> LayerGeometry:
    """Compares one layer with impulses; the axis that is measured is long, the others short."""
    network = uniform(network)
    for axis in range(rank):
        shape = tuple(length if index == axis else width for index in range(rank))
        example = torch.rand(1, 1, *shape, dtype=torch.float64)
        geometry = layer_geometry(network, example, [path])[path]
        centers = measured(network, shape, path, axis)
        start, stride = line(centers, period)
        assert geometry.exact
        assert geometry.shape[axis] == len(centers)
        assert geometry.start[axis] == pytest.approx(start, abs=1e-6)
        assert geometry.stride[axis] == pytest.approx(stride, abs=1e-6)
    return geometry


def stack(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def interpolation(**arguments: object) -> nn.Module:
    return Function(lambda x: F.interpolate(x, **arguments))


def shuffled(x: Tensor) -> Tensor:
    """Channels as positions inside the cell: pixel shuffle in any rank."""
    rank, cells = x.ndim - 2, x.shape[2:]
    x = x.reshape(len(x), -1, *[2] * rank, *cells)
    inside, outside = range(2, 2 + rank), range(2 + rank, 2 + 2 * rank)
    order = itertools.chain.from_iterable(zip(outside, inside, strict=True))
    return x.permute(0, 1, *order).reshape(len(x), -1, *(2 * size for size in cells))


def unshuffled(x: Tensor) -> Tensor:
    """Positions inside the cell as channels."""
    rank, cells = x.ndim - 2, [size // 2 for size in x.shape[2:]]
    x = x.reshape(*x.shape[:2], *itertools.chain.from_iterable((size, 2) for size in cells))
    inside, outside = range(3, 3 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    return x.permute(0, 1, *inside, *outside).reshape(len(x), -1, *cells)


STACKS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "same": (lambda r: stack(CONV[r](1, 2, 3, padding=1)), 1),
    "same_string": (lambda r: stack(CONV[r](1, 2, 4, padding="same")), 1),
    "valid": (lambda r: stack(CONV[r](1, 2, 5), CONV[r](2, 1, 3)), 1),
    "even_kernel": (lambda r: stack(CONV[r](1, 2, 2, stride=2), CONV[r](2, 1, 4, padding=1)), 1),
    "dilated": (lambda r: stack(CONV[r](1, 2, 3, dilation=3), CONV[r](2, 1, 2, dilation=2)), 1),
    "nnunet": (lambda r: stack(*(CONV[r](1, 1, 3, 2, 1) for _ in range(2))), 1),
    "anisotropic": (
        lambda r: stack(CONV[r](1, 2, (3, 5, 1)[-r:], (1, 2, 3)[-r:], (1, 0, 0)[-r:])),
        1,
    ),
    "max_pool": (lambda r: stack(MAX_POOL[r](3, 2, 1), MAX_POOL[r](2), MAX_POOL[r](2, 1)), 1),
    "dilated_pool": (lambda r: stack(MAX_POOL[r](2, 2, 0, dilation=3)), 1),
    "ceil_pool": (lambda r: stack(MAX_POOL[r](3, 2, ceil_mode=True)), 1),
    "avg_pool": (lambda r: stack(AVG_POOL[r](4, 3, 1), CONV[r](1, 1, 3, padding=1)), 1),
    "transposed": (lambda r: stack(CONV[r](1, 1, 2, 2), TRANSPOSED[r](1, 1, 2, 2)), 2),
    "transposed_3": (lambda r: stack(CONV[r](1, 1, 3, 2, 1), TRANSPOSED[r](1, 1, 3, 2, 1, 1)), 2),
    "transposed_4": (lambda r: stack(CONV[r](1, 1, 3, 2, 1), TRANSPOSED[r](1, 1, 4, 2, 1)), 2),
    "transposed_dilated": (
        lambda r: stack(CONV[r](1, 1, 3, 2, 1), TRANSPOSED[r](1, 1, 3, 1, 1, dilation=2)),
        1,
    ),
    "nearest": (lambda r: stack(CONV[r](1, 1, 3, 2, 1), interpolation(scale_factor=2)), 2),
    "nearest_down": (lambda r: stack(interpolation(scale_factor=1 / 3), CONV[r](1, 1, 1)), 1),
    "nearest_ratio": (lambda r: stack(interpolation(scale_factor=1.5), CONV[r](1, 1, 1)), 3),
    "nearest_exact": (
        lambda r: stack(interpolation(scale_factor=0.5, mode="nearest-exact"), CONV[r](1, 1, 1)),
        1,
    ),
    "area": (lambda r: stack(interpolation(scale_factor=0.5, mode="area"), CONV[r](1, 1, 3)), 1),
    "pad": (lambda r: stack(Function(lambda x: F.pad(x, (3, 1) * r)), CONV[r](1, 1, 3)), 1),
    "crop": (lambda r: stack(Function(lambda x: F.pad(x, (-3, 1) * r)), CONV[r](1, 1, 3)), 1),
    "reflect": (
        lambda r: stack(Function(lambda x: F.pad(x, (2, 1) * r, "reflect")), CONV[r](1, 1, 3)),
        1,
    ),
    "slice": (lambda r: stack(Function(lambda x: x[..., 2:-1]), CONV[r](1, 1, 3)), 1),
    "every_second": (lambda r: stack(Function(lambda x: x[..., 1::2]), CONV[r](1, 1, 3)), 1),
    "flip": (lambda r: stack(Function(lambda x: x.flip(-1)), CONV[r](1, 1, 4, 2)), 1),
    "functional": (lambda r: stack(Function(lambda x: F.relu_(F.hardswish(x) * 2) / 3)), 1),
    "unfold": (
        lambda r: stack(Function(lambda x: x.unfold(-1, 4, 2).mean(-1)), CONV[r](1, 1, 3)),
        1,
    ),
    "pixels_to_channels": (
        lambda r: stack(Function(lambda x: x.unflatten(-1, (-1, 2)).sum(-1)), CONV[r](1, 1, 3)),
        1,
    ),
    "index": (lambda r: stack(Function(lambda x: x[..., torch.arange(1, 20, 3)])), 1),
    "pieces": (lambda r: stack(Function(lambda x: torch.cat(x.split(7, -1)[1:3], -1))), 1),
    "patches": (
        lambda r: stack(
            Function(lambda x: torch.cat([x[..., 0::2], x[..., 1::2]], 1).sum(1, True))
        ),
        1,
    ),
    "shuffle": (lambda r: stack(CONV[r](1, 2**r, 3, 2, 1), Function(shuffled)), 2),
    "shuffle_conv": (
        lambda r: stack(CONV[r](1, 2**r, 3, 2, 1), Function(shuffled), CONV[r](1, 1, 3)),
        2,
    ),
    "unshuffle": (lambda r: stack(Function(unshuffled), CONV[r](2**r, 1, 3)), 1),
    "padded_by_cat": (
        lambda r: stack(
            Function(lambda x: torch.cat([torch.zeros_like(x[..., :2]), x], -1)), CONV[r](1, 1, 3)
        ),
        1,
    ),
    "rolled_back": (
        lambda r: stack(Function(lambda x: x.roll(-3, -1)), Function(lambda x: x.roll(3, -1))),
        1,
    ),
    "transposed_axes": (
        lambda r: stack(
            Function(lambda x: x.transpose(1, -1)[..., None].squeeze(-1).transpose(1, -1))
        ),
        1,
    ),
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", STACKS)
def test_stacks(kind: str, rank: int) -> None:
    build, period = STACKS[kind]
    network = stack(*build(rank))
    width = 24 if kind in ("index", "pieces") else 12
    check(network, rank, str(len(network) - 1), period, width=width)


@pytest.mark.parametrize("mode", ["linear", "bilinear", "trilinear", "bicubic"])
@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_interpolations_without_corners(mode: str, scale: float) -> None:
    rank = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}[mode]
    layer = interpolation(scale_factor=scale, mode=mode, align_corners=False)
    period = max(1, int(scale))
    check(stack(layer, CONV[rank](1, 1, 1)), rank, "1", period, length=32)


@pytest.mark.parametrize("upwards", [True, False])
def test_pixel_shuffles_of_torch(upwards: bool) -> None:
    shuffles = {True: (nn.PixelShuffle(2), shuffled), False: (nn.PixelUnshuffle(2), unshuffled)}
    layer, ours = shuffles[upwards]
    image = torch.rand(2, 4, 6, 8)
    assert torch.equal(layer(image), ours(image))
    first, second = (stack(module) for module in (layer, Function(ours)))
    assert layer_geometry(first, image, ["0"]) == layer_geometry(second, image, ["0"])


@pytest.mark.parametrize("size", [7, 16, 31])
def test_corners_stay_in_the_corners(size: int) -> None:
    network = stack(interpolation(size=(size, 9), mode="bilinear", align_corners=True))
    geometry = layer_geometry(network, torch.rand(1, 1, 13, 9), ["0"])["0"]
    assert geometry.exact
    assert geometry.start == (0, 0)
    assert geometry.stride[0] * (size - 1) == pytest.approx(12)
    ramp = torch.arange(13.0)[None, None, :, None].expand(1, 1, 13, 9)
    cells = geometry.start[0] + geometry.stride[0] * torch.arange(size)
    torch.testing.assert_close(network(ramp)[0, 0, :, 0], cells)


@pytest.mark.parametrize("size", [5, 8, 24])
def test_adaptive_pooling(size: int) -> None:
    network = stack(nn.AdaptiveAvgPool2d((size, 1)))
    geometry = layer_geometry(network, torch.rand(1, 1, 24, 10), ["0"])["0"]
    centers = network(torch.arange(24.0)[None, None, :, None].expand(1, 1, 24, 10))[0, 0, :, 0]
    cells = geometry.start[0] + geometry.stride[0] * torch.arange(size)
    torch.testing.assert_close(cells, centers, atol=0.5 if 24 % size else 1e-5, rtol=0)
    assert geometry.exact == (24 % size == 0)
    assert (geometry.shape[1], geometry.start[1]) == (1, 4.5)


class TestMonai:
    """Real architectures; their skips keep the grid of the shorter branch."""

    @pytest.fixture(autouse=True)
    def _monai(self) -> None:
        pytest.importorskip("monai")

    @pytest.mark.parametrize("rank", [2, 3])
    def test_unet(self, rank: int) -> None:
        from monai.networks.nets import UNet

        network = UNet(rank, 1, 2, (2, 2, 2), (2, 2), num_res_units=1)
        size = {"length": 96, "width": 8}
        assert check(network, rank, "model.0", **size).stride == (2,) * rank
        deep = check(network, rank, "model.1.submodule.1.submodule", **size)
        assert deep.start == (0,) * rank
        assert deep.stride == (4,) * rank
        assert check(network, rank, "model.2", period=4, **size).stride == (1,) * rank

    def test_dynunet_anisotropic(self) -> None:
        from monai.networks.nets import DynUNet

        kernels, strides = [(1, 3, 3), (3, 3, 3), (3, 3, 3)], [1, (1, 2, 2), 2]
        network = DynUNet(3, 1, 2, kernels, strides, strides[1:], filters=(2, 2, 2))
        geometry = check(network, 3, "bottleneck", length=96, width=8)
        assert (geometry.start, geometry.stride) == ((0, 0, 0), (2, 4, 4))
        paths = ["upsamples.1.transp_conv", "upsamples.1", "output_block"]
        up, merged, out = layer_geometry(network, torch.rand(1, 1, 16, 32, 32), paths).values()
        assert up.stride == merged.stride == (1, 1, 1)
        assert merged.start == out.start == (0, 0, 0)

    @pytest.mark.parametrize("rank", [2, 3])
    def test_resnet(self, rank: int) -> None:
        from monai.networks.nets import resnet10

        network = resnet10(spatial_dims=rank, n_input_channels=1, num_classes=2, conv1_t_stride=2)
        for path, stride in (("maxpool", 4), ("layer2", 8)):
            geometry = layer_geometry(network, torch.rand(1, 1, *(64, 48, 32)[:rank]), [path])[path]
            assert (geometry.start, geometry.stride) == ((0.0,) * rank, (stride,) * rank)
        check(stack(network.conv1, network.act, network.maxpool), rank, "2", width=8)

    def test_densenet(self) -> None:
        from monai.networks.nets import DenseNet

        network = DenseNet(2, 1, 2, init_features=2, growth_rate=1, block_config=(1, 1, 1))
        for path, start, stride in (
            ("features.pool0", 0, 4),
            ("features.transition1", 2, 8),
            ("features.transition2", 6, 16),
        ):
            geometry = check(network, 2, path, length=288, width=32)
            assert (geometry.start, geometry.stride) == ((start,) * 2, (stride,) * 2)

    def test_swin_windows_and_patches(self) -> None:
        from monai.networks.nets import SwinUNETR

        options = {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
        network = SwinUNETR(1, 2, spatial_dims=2, **options).eval()
        example = torch.rand(2, 1, 64, 96)
        names = ["patch_embed", "layers1.0.blocks.1", "layers1.0.blocks.1.attn", "layers1.0"]
        paths = [f"swinViT.{name}" for name in names]
        embed, block, attention, merged = layer_geometry(network, example, paths).values()
        for geometry, start, stride in ((embed, 0.5, 2), (block, 0.5, 2), (merged, 1.5, 4)):
            assert (geometry.exact, geometry.start, geometry.stride) == (
                True,
                (start,) * 2,
                (stride,) * 2,
            )
        assert attention.stride == (2, 2)
        assert attention.shape == (35, 49)  # padded to whole windows of 7, rolled by 3
        assert attention.exact
        assert attention.start == (0.5, 0.5)
        assert attention.rolled == (3, 3)  # as_map brings them back

    def test_vit_tokens(self) -> None:
        from monai.networks.nets import ViT

        network = ViT(1, (32, 48, 16), (8, 16, 8), 24, 32, 2, 2, classification=True)
        geometries = layer_geometry(network, torch.rand(1, 1, 32, 48, 16), ["blocks.1", "norm"])
        for geometry in geometries.values():
            assert geometry.exact
            assert geometry.shape == (4, 3, 2)
            assert geometry.stride == (8, 16, 8)
            assert geometry.start == (3.5, 7.5, 3.5)

    def test_perceptron_patches(self) -> None:
        from monai.networks.blocks import PatchEmbeddingBlock

        network = stack(
            PatchEmbeddingBlock(1, (16, 24), (4, 8), 8, 2, "perceptron", spatial_dims=2)
        )
        geometry = layer_geometry(network, torch.rand(2, 1, 16, 24), ["0"])["0"]
        assert (geometry.exact, geometry.shape) == (True, (4, 3))
        assert (geometry.start, geometry.stride) == ((1.5, 3.5), (4, 8))


class TestAsMap:
    """Activations come back as (B, K, *cells), whatever their layout."""

    @staticmethod
    def coordinates(shape: Size) -> Tensor:
        """An image whose channels are its voxel coordinates."""
        return torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).float()[None]

    def arranged(self, network: nn.Module, shape: Size, batch: int = 3) -> None:
        """Every cell of the map holds the coordinates that the geometry says it has."""
        image = self.coordinates(shape)
        geometry = layer_geometry(network, image, ["0"])["0"]
        images = torch.cat([image + index for index in range(batch)])
        for activation in (network(image), network(images)):
            map = geometry.as_map(activation)
            assert map.shape[2:] == geometry.shape
            for index, axis in itertools.product(range(len(map)), range(len(shape))):
                cells = geometry.start[axis] + geometry.stride[axis] * torch.arange(
                    geometry.shape[axis]
                )
                along = map[index, axis].movedim(axis, 0).reshape(len(cells), -1)[:, 0]
                torch.testing.assert_close(along, cells + index)

    @pytest.mark.parametrize("shape", [(8,), (8, 6), (6, 4, 10), (6, 1, 4)])
    def test_tokens_and_channels_last(self, shape: Size) -> None:
        self.arranged(stack(Function(lambda x: x.flatten(2).transpose(1, 2))), shape)
        self.arranged(stack(Function(lambda x: x.movedim(1, -1))), shape)
        self.arranged(stack(Function(lambda x: x.flatten(1))), shape)

    def test_class_token(self) -> None:
        def tokens(x: Tensor) -> Tensor:
            flat = x.flatten(2).transpose(1, 2)
            token = torch.full((len(x), 1, 2), 77.0)
            return torch.cat([token, flat, token, token], 1)

        self.arranged(stack(Function(tokens)), (4, 6))

    def test_a_linear_layer_on_tokens_keeps_them(self) -> None:
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data = torch.eye(2)

        def tokens(x: Tensor) -> Tensor:
            flat = x.flatten(2).transpose(1, 2)
            return layer(torch.cat([torch.zeros(len(x), 1, 2), flat], 1))

        self.arranged(stack(Function(tokens)), (4, 6))

    def test_class_token_alone_has_no_place(self) -> None:
        network = stack(Function(lambda x: torch.cat([x[..., :1] * 0, x], -1)[..., 0]))
        geometry = layer_geometry(network, torch.rand(1, 2, 9), ["0"])["0"]
        assert not geometry.spatial

    def test_windows_in_the_batch(self) -> None:
        def windows(x: Tensor) -> Tensor:
            batch, channels, height, width = x.shape
            x = x.view(batch, channels, height // 2, 2, width // 3, 3)
            return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, 6, channels)

        self.arranged(stack(Function(windows)), (4, 6))

    def test_slices_in_the_batch(self) -> None:
        """A 2.5-D network: every slice of the volume is an image of its own."""
        slices = Function(lambda x: x.transpose(1, 2).flatten(0, 1)[:, :, ::2])
        self.arranged(stack(slices), (5, 4, 3))

    @pytest.mark.parametrize(("size", "step"), [(4, 2), (3, 1), (2, 3)])
    def test_windows_that_overlap_or_leave_gaps_are_channels(self, size: int, step: int) -> None:
        network = stack(Function(lambda x: x.unfold(2, size, step)))
        image = torch.arange(16.0).reshape(1, 1, 16)
        geometry = layer_geometry(network, image, ["0"])["0"]
        map = geometry.as_map(network(image))
        assert (geometry.exact, map.shape) == (True, (1, size, *geometry.shape))
        assert geometry.start == ((size - 1) / 2,)
        assert geometry.stride == (float(step),)
        centers = geometry.start[0] + geometry.stride[0] * torch.arange(geometry.shape[0])
        torch.testing.assert_close(map.mean(1)[0], centers)

    def test_another_layout_is_refused(self) -> None:
        geometry = layer_geometry(stack(nn.Conv2d(1, 2, 1)), torch.rand(1, 1, 4, 4), ["0"])["0"]
        with pytest.raises(ModelError, match=r"not laid out as its layer was"):
            geometry.as_map(torch.rand(1, 2, 5, 4))


class TestPlace:
    @pytest.mark.parametrize("marker", [(48, 16, 32), (0, 64, 80), (96, 32, 0)])
    def test_a_copied_marker_returns_to_its_position(self, marker: Size) -> None:
        """Four stride-2 convolutions that copy: start 0, where interpolation is 7.5 off."""
        network = stack(*(nn.Conv3d(1, 1, 3, 2, 1, bias=False) for _ in range(4)))
        for layer in network:
            layer.weight.data = F.pad(torch.ones(1, 1, 1, 1, 1), (1,) * 6)
        image = torch.zeros(1, 1, 112, 96, 96)
        image[(0, 0, *marker)] = 1
        with torch.no_grad():
            activation = network(image)
        geometry = layer_geometry(network, image, ["3"])["3"]
        placed = place(geometry.as_map(activation)[0], geometry, image.shape[2:])
        assert placed[(0, *marker)] == 1
        assert placed.argmax() == image[0].argmax()
        # The usual way misses by 7.5 voxels along every axis that does not end at the border.
        usual = F.interpolate(activation, image.shape[2:], mode="trilinear", align_corners=False)
        assert usual[(0, 0, *marker)] < 0.3

    @pytest.mark.parametrize("offset", [-1, 0, 1])
    def test_a_unit_that_copies_a_neighbor_is_placed_at_its_own_center(self, offset: int) -> None:
        """Where a cell lies is what it looks around, not which voxel its weights prefer."""
        layer = nn.Conv1d(1, 1, 3, 2, 1, bias=False)
        layer.weight.data.zero_()[0, 0, 1 + offset] = 1
        image = torch.zeros(1, 1, 32)
        image[..., 16 + offset] = 1
        geometry = layer_geometry(stack(layer), image, ["0"])["0"]
        placed = place(layer(image)[0].detach(), geometry, (32,))
        assert placed.argmax() == 16

    @pytest.mark.parametrize("shape", [(24,), (24, 18), (24, 18, 30)])
    def test_equals_interpolate_where_its_assumption_holds(self, shape: Size) -> None:
        rank = len(shape)
        network = stack(AVG_POOL[rank](2), AVG_POOL[rank](3))
        geometry = layer_geometry(network, torch.rand(1, 1, *shape), ["1"])["1"]
        map = torch.rand(5, *geometry.shape)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
        usual = F.interpolate(map[None], shape, mode=mode, align_corners=False)[0]
        torch.testing.assert_close(place(map, geometry, shape), usual)
        nearest = F.interpolate(map[None], shape, mode="nearest-exact")[0]
        torch.testing.assert_close(place(map, geometry, shape, mode="nearest"), nearest)

    @pytest.mark.parametrize("start", [-3.0, 0.0, 2.25])
    @pytest.mark.parametrize("stride", [0.5, 1.0, 3.0, 4.5, -2.0])
    def test_a_ramp_keeps_its_values(self, start: float, stride: float) -> None:
        """Cells that hold their own position give every voxel between them its position."""
        cells, size = 9, 40
        geometry = LayerGeometry((start, 0), (stride, 1), (cells, 3), exact=True)
        position = start + stride * torch.arange(cells, dtype=torch.float64)
        placed = place(position[None, :, None].expand(1, cells, 3), geometry, (size, 3))[0, :, 0]
        expected = torch.arange(size, dtype=torch.float64).clamp(position.min(), position.max())
        torch.testing.assert_close(placed, expected)

    def test_the_layer_grid_itself_is_left_as_it_is(self) -> None:
        geometry = LayerGeometry((0.0, 0.0), (1.0, 1.0), (4, 5), exact=True)
        map = torch.rand(2, 4, 5)
        assert torch.equal(place(map, geometry, (4, 5)), map)

    def test_one_slice_equals_the_plane(self) -> None:
        flat = LayerGeometry((0.0, 1.5), (2.0, 4.0), (6, 4), exact=True)
        deep = LayerGeometry((0.0, 0.0, 1.5), (1.0, 2.0, 4.0), (1, 6, 4), exact=True)
        map = torch.rand(3, 6, 4)
        placed = place(map[:, None], deep, (1, 12, 16))
        assert torch.equal(placed[:, 0], place(map, flat, (12, 16)))

    def test_half_precision_becomes_single(self) -> None:
        geometry = LayerGeometry((0.0,), (2.0,), (4,), exact=True)
        assert place(torch.rand(1, 4).bfloat16(), geometry, (8,)).dtype == torch.float32

    def test_a_map_of_another_shape_is_refused(self) -> None:
        geometry = LayerGeometry((0.0,), (2.0,), (4,), exact=True)
        with pytest.raises(ModelError, match=r"does not fit a layer with cells \(4,\)"):
            place(torch.rand(1, 5), geometry, (8,))


def _copied_in_reverse(x: Tensor) -> Tensor:
    back = torch.arange(x.shape[2] - 1, -1, -1)
    return torch.zeros_like(x).index_copy(2, back, x)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "rolled": lambda x: x.roll((2, -4), (2, 3)),
    "rolled and back by half": lambda x: x.roll(6, 3).roll(-2, 3),
    "rolled and flipped": lambda x: x.roll(2, 2).flip(2),
    "turned": lambda x: x.rot90(1, (2, 3)),
    "turned twice": lambda x: x.rot90(2, (2, 3)),
    "turned back": lambda x: x.rot90(-1, (2, 3)),
    "copied in reverse": _copied_in_reverse,
}


class TestFollowing:
    def test_unknown_functions_are_assumed_and_marked(self) -> None:
        network = stack(Function(lambda x: torch.fft.fft(x).real), AVG_POOL[1](2), nn.LSTM(8, 5))
        geometries = layer_geometry(network, torch.rand(1, 1, 16), ["0", "1"])
        assert (geometries["1"].exact, geometries["1"].start, geometries["1"].stride) == (
            False,
            (0.5,),
            (2,),
        )

    def test_a_module_of_which_nothing_is_seen_is_assumed_by_its_shapes(self) -> None:
        def by_numpy(x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy()[..., ::4].copy())

        network = stack(nn.Conv1d(1, 2, 3, padding=1), Function(by_numpy), nn.Conv1d(2, 2, 3))
        geometries = layer_geometry(network, torch.rand(1, 1, 32), ["1", "2"])
        assert geometries["1"] == LayerGeometry((1.5,), (4.0,), (8,), exact=False)
        assert geometries["2"] == LayerGeometry((5.5,), (4.0,), (6,), exact=False)

    @pytest.mark.parametrize("rank", [2, 3])
    @pytest.mark.parametrize("name", sorted(MOVES))
    def test_moved_voxels_are_found_again(self, name: str, rank: int) -> None:
        image = torch.rand(2, 1, *(8, 8, 12)[:rank])
        network = stack(Function(MOVES[name]), AVG_POOL[rank](2))
        found = layer_geometry(network, image, ["1"])["1"]
        assert found.exact
        placed = place(found.as_map(network(image))[1], found, image.shape[2:], "nearest")
        cells = AVG_POOL[rank](2)(image[1])
        assert torch.allclose(placed, F.interpolate(cells[None], image.shape[2:])[0])

    def test_a_roll_within_a_cell_or_of_a_part_is_not_exact(self) -> None:
        within = stack(Function(lambda x: x.roll(1, 2)), AVG_POOL[2](2))
        part = stack(Function(lambda x: x.roll(2, 2)[:, :, 1:]), nn.ReLU())
        added = stack(Function(lambda x: x.roll(2, 2) + x), nn.ReLU())
        for network in (within, part, added):
            assert not layer_geometry(network, torch.rand(1, 1, 8, 8), ["1"])["1"].exact

    def test_rules_do_not_fail_on_forms_they_do_not_know(self) -> None:
        network = stack(Function(lambda x: x / x.quantile(0.9)), Function(lambda x: x - x.max()))
        found = layer_geometry(network, torch.rand(1, 1, 8, 6), ["1"])["1"]
        assert (found.start, found.stride) == ((0.0, 0.0), (1.0, 1.0))

    def test_torchscript_and_custom_functions_are_followed(self) -> None:
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx: object, x: Tensor) -> Tensor:
                return F.max_pool1d(x, 3, 2, 1)

        scripted = torch.jit.script(stack(nn.Conv1d(1, 1, 3, 2, 1), nn.ReLU()))
        network = stack(scripted, Function(Double.apply))
        geometries = layer_geometry(network, torch.rand(1, 1, 32), ["1"])
        with pytest.raises(ModelError, match=r"'0' is not called .*TorchScript"):
            layer_geometry(network, torch.rand(1, 1, 32), ["0"])
        assert geometries["1"] == LayerGeometry((0.0,), (4.0,), (8,), exact=True)

    def test_skips_take_the_shorter_branch(self) -> None:
        class Skip(nn.Module):
            def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
                super().__init__()
                self.down = stack(*(nn.Conv1d(1, 1, 3, 2, 1) for _ in range(3)))
                self.up = stack(*(nn.ConvTranspose1d(1, 1, 2, 2) for _ in range(3)))
                self.join = Function(lambda pair: join(*pair))

            def forward(self, x: Tensor) -> Tensor:
                return self.join((self.up(self.down(x)), x))

        for join in (torch.add, torch.mul, lambda a, b: torch.cat([a, b], 1)):
            geometries = layer_geometry(Skip(join), torch.rand(1, 1, 32), ["up", "join"])
            assert geometries["up"].start == (-3.5,)
            assert (geometries["join"].start, geometries["join"].exact) == ((0.0,), True)

    def test_pooled_gates_do_not_move_the_map(self) -> None:
        class Gate(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.sigmoid(x.mean((2, 3), keepdim=True)) * x

        network = stack(nn.Conv2d(1, 2, 3, 2, 1), Gate())
        geometry = layer_geometry(network, torch.rand(1, 1, 16, 12), ["1"])["1"]
        assert geometry == LayerGeometry((0.0, 0.0), (2.0, 2.0), (8, 6), exact=True)

    def test_attention_keeps_the_places_of_its_queries(self) -> None:
        torch.manual_seed(0)
        encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        network = stack(
            nn.Conv2d(1, 8, 4, 4), Function(lambda x: x.flatten(2).transpose(1, 2)), encoder
        )
        geometries = layer_geometry(network, torch.rand(2, 1, 16, 24), ["2", "2.self_attn"])
        for geometry in geometries.values():
            assert geometry == LayerGeometry((1.5, 1.5), (4.0, 4.0), (4, 6), exact=True)

    def test_repeated_layers_by_number_and_inputs_by_side(self) -> None:
        class Reused(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.down = nn.Conv1d(1, 1, 3, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.down(self.down(self.down(x)))

        geometries = layer_geometry(Reused(), torch.rand(1, 1, 32), ["down", "down#0", "down#1"])
        assert [geometry.stride for geometry in geometries.values()] == [(8.0,), (2.0,), (4.0,)]
        of_inputs = layer_geometry(Reused(), torch.rand(1, 1, 32), ["down", "down#0"], side="input")
        assert [geometry.stride for geometry in of_inputs.values()] == [(4.0,), (1.0,)]
        with pytest.raises(ModelError, match="there are 3 calls"):
            layer_geometry(Reused(), torch.rand(1, 1, 32), ["down#3"])

    def test_unknown_and_uncalled_layers(self) -> None:
        network = stack(nn.Conv1d(1, 1, 3))
        network[0].spare = nn.Conv1d(1, 1, 3)
        with pytest.raises(ModelError, match=r"no layer '0.spar'; did you mean 0.spare"):
            layer_geometry(network, torch.rand(1, 1, 8), ["0.spar"])
        with pytest.raises(ModelError, match=r"'0.spare' is not called"):
            layer_geometry(network, torch.rand(1, 1, 8), ["0.spare"])

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_network_is_left_bit_identical(self, fails: bool) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("calls", torch.zeros(()))
                self.register_buffer("last", torch.zeros(2))

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                self.last = x.detach().mean() + torch.randn(2)
                if fails:
                    raise RuntimeError("the forward failed")
                return x

        network = stack(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(inplace=True), Counting()
        )
        network[3].eval()
        network[0].bias.requires_grad_(False)
        example = torch.rand(2, 1, 8, 8, requires_grad=True)
        before, generator = network_state(network), torch.get_rng_state()
        copy_of_example = example.detach().clone()
        if fails:
            with pytest.raises(ModelError, match="the forward failed"):
                follow_network(network, example)
        else:
            follow_network(network, example)
        assert network_state(network) == before
        assert torch.equal(torch.get_rng_state(), generator)
        assert torch.equal(example, copy_of_example)
        assert example.grad is None
        assert example.requires_grad


def network_state(network: nn.Module) -> Sequence[object]:
    """Everything that must not change."""
    tensors = {**network.state_dict(), **dict(network.named_buffers())}
    return (
        {name: (value.data_ptr(), value.tolist()) for name, value in tensors.items()},
        [parameter.requires_grad for parameter in network.parameters()],
        [(name, module.training) for name, module in network.named_modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()],
        [len(m._forward_hooks_with_kwargs) for m in network.modules()],
    )
