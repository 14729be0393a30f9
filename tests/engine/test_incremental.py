"""Incremental forwards of a changed box equal plain forwards, and compute less."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import matrix
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import assert_close, classifier, segmenter, untouched
from torch import Tensor, nn

from voxplain.engine.acceleration.incremental import Incremental, estimate_work
from voxplain.engine.acceleration.incremental.boxes import BoxSet, Reach, affected_boxes, crop
from voxplain.engine.acceleration.incremental.tensor import IncrementalTensor
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import InputError
from voxplain.models.model import Model

Box = tuple[slice, ...]
SHAPES = {1: (61,), 2: (37, 40), 3: (19, 17, 22)}


class FunctionNetwork(nn.Module):
    """A function of the image, which records whether its result was computed on boxes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.local = False

    def forward(self, image: Tensor) -> Tensor:
        result = self.function(image)
        self.local = isinstance(result, IncrementalTensor) and result.value is not None
        return result


def random_boxes(shape: tuple[int, ...], count: int, seed: int, size: float = 0.2) -> list[Box]:
    """Boxes of various sizes, of which the first two touch opposite corners."""
    source = np.random.default_rng(seed)
    boxes = []
    for number in range(count):
        spans = []
        for cells in shape:
            length = int(source.integers(1, max(2, int(size * cells) + 1)))
            low = (0, cells - length)[number] if number < 2 else source.integers(cells - length + 1)
            spans.append(slice(int(low), int(low) + length))
        boxes.append(tuple(spans))
    return boxes


def changed(image: Tensor, boxes: list[Box], seed: int = 3) -> Tensor:
    """Copies of an image with noise in one box each."""
    source = torch.Generator().manual_seed(seed)
    inputs = image.repeat(len(boxes), *[1] * image.ndim)
    for number, box in enumerate(boxes):
        noise = torch.randn(image[(slice(None), *box)].shape, generator=source)
        inputs[(number, slice(None), *box)] = noise.to(image)
    return inputs


def plain(model: Model, inputs: Tensor) -> Tensor:
    with model.at_rest(), torch.no_grad():
        return model(inputs)


def check(network: nn.Module, image: Tensor, tolerance: float, size: float = 0.2) -> None:
    """Incremental outputs equal plain ones for three batches of boxes with one cache."""
    model = Model(network)
    incremental = Incremental(model, image)
    for seed in range(3):
        boxes = random_boxes(tuple(image.shape[1:]), 2 + seed, seed, size)
        inputs = changed(image, boxes, seed)
        assert_close(incremental.outputs(inputs, boxes), plain(model, inputs), tolerance)
    assert incremental.supported


def calibrated(network: nn.Module) -> nn.Module:
    """The network with running statistics and affine weights that are not 0 and 1."""
    source = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            with torch.no_grad():
                for tensor in (module.running_mean, module.bias):
                    tensor.copy_(0.3 * torch.randn(tensor.shape, generator=source))
                for tensor in (module.running_var, module.weight):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source))
    return network.eval()


def weight(*shape: int) -> Tensor:
    source = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=source, dtype=torch.float64)


def noise(rank: int, channels: int = 2) -> Tensor:
    return weight(channels, *SHAPES[rank])


def _convolutions(rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
    conv = getattr(F, f"conv{rank}d")
    transposed = getattr(F, f"conv_transpose{rank}d")
    three, two, one = (weight(4, 2, *(side,) * rank) for side in (3, 2, 1))
    grouped, up = weight(4, 1, *(3,) * rank), weight(2, 3, *(3,) * rank)
    uneven = weight(4, 2, *(5, 1, 3)[:rank])
    return {
        "padded": lambda x: conv(x, three, weight(4), padding=1),
        "valid": lambda x: conv(x, three),
        "same": lambda x: conv(x, two, padding="same"),
        "strided": lambda x: conv(x, three, weight(4), stride=2, padding=1),
        "skipping": lambda x: conv(x, one, stride=3),
        "dilated": lambda x: conv(x, three, dilation=2, padding=2),
        "all at once": lambda x: conv(x, three, None, 3, 2, 2),
        "grouped": lambda x: conv(x, grouped, padding=1, groups=2),
        "uneven": lambda x: conv(x, uneven, padding=(2, 0, 1)[:rank]),
        "up by 2": lambda x: transposed(x, up[..., :2].contiguous() if rank == 1 else up, stride=2),
        "up with output padding": lambda x: transposed(x, up, weight(3), 2, 1, 1),
        "up with gaps": lambda x: transposed(x, weight(2, 3, *(1,) * rank), weight(3), 3, 0, 2),
        "up dilated": lambda x: transposed(x, up, None, 2, 1, 0, 1, 2),
        "up grouped": lambda x: transposed(x, grouped[:2], None, 2, 0, 0, 2),
        "twice": lambda x: conv(conv(x, three, padding=1), weight(3, 4, *(3,) * rank), stride=2),
    }


def _pools(rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
    maximum, mean = getattr(F, f"max_pool{rank}d"), getattr(F, f"avg_pool{rank}d")
    return {
        "max": lambda x: maximum(x, 2),
        "max, overlapping": lambda x: maximum(x, 3, 2, 1),
        "max dilated, rounded up": lambda x: maximum(x, 3, 2, 1, 2, ceil_mode=True),
        "mean": lambda x: mean(x, 2),
        "mean with padding": lambda x: mean(x, 3, 2, 1),
        "mean without padding": lambda x: mean(x, 3, 2, 1, count_include_pad=False),
        "mean rounded up": lambda x: mean(x, 3, 2, 1, ceil_mode=True),
    }


def _samplings(rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    odd = tuple(cells * 3 // 2 + 1 for cells in SHAPES[rank])
    result = {
        "nearest": lambda x: F.interpolate(x, scale_factor=2),
        "nearest, odd": lambda x: F.interpolate(x, odd),
        "nearest-exact": lambda x: F.interpolate(x, odd, mode="nearest-exact"),
        "linear": lambda x: F.interpolate(x, scale_factor=2, mode=linear),
        "linear, corners": lambda x: F.interpolate(x, odd, mode=linear, align_corners=True),
        "linear, scale 1.7": lambda x: F.interpolate(x, scale_factor=1.7, mode=linear),
        "linear, down": lambda x: F.interpolate(x, scale_factor=0.5, mode=linear),
    }
    if rank == 2:
        result["cubic"] = lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")
        result["smooth"] = lambda x: F.interpolate(x, (20, 21), mode="bilinear", antialias=True)
    return result


def _rearrangements(rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
    sides = (1, 2, 3, 0, 2, 1)[: 2 * rank]
    return {
        "constant": lambda x: F.pad(x, sides, value=1.5),
        "cropped": lambda x: F.pad(x, (-1, 2) * rank),
        "more channels": lambda x: F.pad(x, (0, 0) * rank + (1, 2)),
        "reflected": lambda x: F.pad(x, sides, "reflect"),
        "replicated": lambda x: F.pad(x, sides, "replicate"),
        "slices": lambda x: x[:, :, 1:-2][..., ::2],
        "flip": lambda x: x.flip(*{2, 1 + rank}),
    }


def _pointwise(rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
    conv, kernel = getattr(F, f"conv{rank}d"), weight(2, 2, *(3,) * rank)
    positions = weight(*SHAPES[rank])

    def branches(x: Tensor) -> Tensor:
        wide = conv(x, kernel, padding=1)
        return torch.cat([x, wide * torch.sigmoid(x[:, :1]), wide + positions], 1)

    def inplace(x: Tensor) -> Tensor:
        wide = conv(x, kernel, padding=1)
        wide.relu_().add_(x).mul_(2)
        wide += 1
        return F.leaky_relu_(wide)

    def halves(x: Tensor) -> Tensor:
        first, second = conv(x, weight(5, 2, *(1,) * rank)).split([2, 3], 1)
        return torch.cat([second, first.tanh()], 1)

    return {
        "branches": branches,
        "in place": inplace,
        "halves": halves,
        "chunks": lambda x: torch.mul(*x.chunk(2, 1)),
        "softmax": lambda x: x.softmax(1) - x.mean(1, keepdim=True) + x.amax(1, True),
        "where": lambda x: torch.where(x > 0, x, 0.1 * x),
        "prelu": lambda x: F.prelu(x, weight(2)),
        "repeated": lambda x: x.repeat(1, 2, *(1,) * rank) + F.dropout(x, 0.5, False)[:, :1],
        "batch norm": lambda x: F.batch_norm(x, weight(2), weight(2) ** 2, weight(2), weight(2)),
        "by number": lambda x: (2 - x) / 3 * torch.tensor(0.5) ** 2 + positions[None, None],
    }


LOCAL = (_convolutions, _pools, _samplings, _rearrangements, _pointwise)
CASES = [
    pytest.param(rank, group, name, id=f"{rank}-D {name}")
    for group in LOCAL
    for rank in (1, 2, 3)
    for name in group(rank)
]


@pytest.mark.parametrize(("rank", "group", "name"), CASES)
def test_local_operators_are_exact_and_stay_local(rank: int, group: Any, name: str) -> None:
    network = FunctionNetwork(group(rank)[name])
    check(network, noise(rank), 1e-12)
    box = tuple(slice(8, 10) for _ in range(rank))
    Incremental(Model(network), noise(rank)).outputs(torch.stack([noise(rank)] * 2), [box] * 2)
    pooled_in_2d = rank == 1 and group is _pools  # torch adds an axis and pools in 2-D
    assert network.local or pooled_in_2d, "the result was computed everywhere"


def _written_slice(x: Tensor) -> Tensor:
    y = x * 2
    y[:, :1] += 1
    return y


def _written_in_another_type(x: Tensor) -> Tensor:
    y = (x * 2).float()
    y += x
    return y.double()


def _written_view(x: Tensor) -> Tensor:
    y = x * 2
    y.view(len(y), -1).add_(1)
    return y + x


def _written_after_view(x: Tensor) -> Tensor:
    y = x * 2
    flat = y.flatten(1)
    y += 1
    return flat.view_as(y) + x


def _filled(x: Tensor) -> Tensor:
    padded = torch.zeros(len(x), 3, *x.shape[2:], dtype=x.dtype)
    padded[:, :2] = x * 3
    return padded


def _written_alias(x: Tensor) -> Tensor:
    y = x * 2
    y.detach().add_(1)
    return y


def _unpooled(x: Tensor) -> Tensor:
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, indices, 2, output_size=x.shape[2:])


def _decided(x: Tensor) -> Tensor:
    return F.relu(x * 2) if x.sum() > 3 else F.avg_pool2d(x, 3, 1, 1)


def _scripted(x: Tensor) -> Tensor:
    y = F.relu(x * 2)
    y += 1
    return F.avg_pool2d(y, 3) * y.mean()


GLOBAL: dict[str, Callable[[Tensor], Tensor]] = {
    "written slice": _written_slice,
    "written in another type": _written_in_another_type,
    "written view": _written_view,
    "written after a view": _written_after_view,
    "filled": _filled,
    "written alias": _written_alias,
    "unpooled": _unpooled,
    "decided by the data": _decided,
    "gate": lambda x: (x * 2) * x.mean((2, 3), keepdim=True).sigmoid(),
    "instance norm": lambda x: F.relu(F.instance_norm(x * 2)),
    "group norm": lambda x: F.group_norm(x, 2) + x,
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2),
    "softmax over positions": lambda x: x.flatten(2).softmax(-1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), "circular"),
    "area": lambda x: F.interpolate(x, scale_factor=0.5, mode="area"),
    "cumulative": lambda x: x.cumsum(-1),
    "rolled": lambda x: x.roll(3, 2),
    "fixed divisor": lambda x: F.avg_pool2d(x, 3, divisor_override=4),
    "statistics of the batch": lambda x: F.batch_norm(x * 2, None, None, training=True),
    "joined positions": lambda x: torch.cat([x * 2, x.flip(2)], 2),
    "joined images": lambda x: torch.cat([x, x * 2], 0)[: len(x)],
    "stacked": lambda x: torch.stack([x, x * 2], 2).sum(2),
    "joined with constants": lambda x: torch.cat([x, torch.ones_like(x)], 1),
    "indices as numbers": lambda x: sum(F.max_pool2d(x, 2, return_indices=True)),
    "own constants": lambda x: x + torch.linspace(0, 1, x.shape[-1]).to(x),
    "constants of the batch size": lambda x: x * torch.ones(len(x), 1, 1, 1).to(x),
    "weights by weights": lambda x: F.conv2d(x, weight(3, 2, 3, 3) / weight(3, 2, 3, 3).norm()),
    "weights by data": lambda x: F.conv2d(x, x[:1, :, :3, :3]),
    "flattened": lambda x: x.flatten(1) @ weight(x[0].numel(), 3),
    "other type": lambda x: x.float().double(),
    "read by another library": lambda x: torch.from_numpy((x * 2).numpy() + 1),
    "scripted": torch.jit.script(_scripted),
    "written with out=": lambda x: torch.add(x, 1, out=torch.empty_like(x)),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_other_operators_are_exact_too(name: str) -> None:
    model, image = Model(FunctionNetwork(GLOBAL[name])), noise(2)
    incremental = Incremental(model, image)
    for seed in range(3):
        boxes = random_boxes(SHAPES[2], 1 + seed, seed)
        inputs = changed(image, boxes, seed)
        before = inputs.clone()
        tolerance = 1e-6 if "type" in name else 1e-12
        assert_close(incremental.outputs(inputs, boxes), plain(model, inputs), tolerance)
        assert torch.equal(inputs, before)


def monai(name: str, rank: int) -> nn.Module:
    """Networks that are local from end to end, or up to their first normalization."""
    nets = pytest.importorskip("monai.networks.nets")
    builders: dict[str, Callable[[], nn.Module]] = {
        "ResNet18": lambda: nets.ResNet(
            "basic", [2, 2, 2, 2], [4, 8, 12, 16], rank, 1, num_classes=2
        ),
        "ResNet with shortcut A": lambda: nets.ResNet(
            "basic", [1, 1, 1, 1], [4, 8, 12, 16], rank, 1, num_classes=2, shortcut_type="A"
        ),
        "UNet, batch norm": lambda: nets.UNet(
            rank, 1, 2, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"
        ),
        "BasicUNet, batch norm": lambda: nets.BasicUNet(
            rank, 1, 2, features=(4, 4, 8, 8, 16, 4), norm="batch", upsample="nontrainable"
        ),
    }
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builders[name]() if name in builders else matrix.network(name, rank)


OWN = ("ResNet18", "ResNet with shortcut A", "UNet, batch norm", "BasicUNet, batch norm")
DEEP = ("ResNet", "DenseNet121", "UNet", "BasicUNet", "SegResNet", "AttentionUnet")
NETWORKS = [
    pytest.param(name, rank, id=f"{name} {rank}-D", marks=marks)
    for rank in (2, 3)
    for name in (*OWN, *matrix.MATRIX)
    for row in [matrix.MATRIX.get(name)]
    if row is None or rank in row.ranks
    for marks in [[pytest.mark.slow] if rank == 3 and row and name not in DEEP else []]
]


@pytest.mark.parametrize(("name", "rank"), NETWORKS)
def test_networks_of_the_matrix_are_exact(name: str, rank: int) -> None:
    network = calibrated(monai(name, rank)).double()
    sizes = {"ResNet": (30, 33, 27), "DenseNet121": (36, 33, 40)}
    side = matrix.MATRIX[name].light if name in matrix.MATRIX else 35
    shape = sizes.get(name, (side,) * 3)[:rank]
    source = torch.Generator().manual_seed(2)
    with untouched(network):
        image = torch.randn(1, *shape, generator=source, dtype=torch.float64)
        check(network, image, 1e-12)


def test_single_precision_is_exact_up_to_rounding() -> None:
    network = calibrated(monai("UNet, batch norm", 3))
    check(network, torch.randn(1, 31, 35, 27, generator=torch.Generator().manual_seed(2)), 2e-6)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("build", [classifier, segmenter])
def test_many_channels_under_inference_mode(build: Any, rank: int) -> None:
    network = build(rank, 4).double()
    image = weight(4, *(6,) * rank)
    model = Model(network)
    boxes = random_boxes((6,) * rank, 3, 0)
    inputs = changed(image, boxes)
    with torch.inference_mode():
        result = Incremental(model, image).outputs(inputs, boxes)
    assert_close(result, plain(model, inputs), 1e-12)


def test_boxes_of_one_size_in_opposite_corners_are_one_batch() -> None:
    network, image = calibrated(monai("ResNet18", 3)).double(), weight(1, 40, 33, 36)
    starts = [(0, 0, 0), (5, 6, 7), (34, 27, 30)]
    patches = weight(3, 1, 6, 6, 6)
    boxes = [tuple(slice(low, low + 6) for low in start) for start in starts]
    inputs = image.repeat(3, 1, 1, 1, 1)
    for number, box in enumerate(boxes):
        inputs[(number, slice(None), *box)] = patches[number]
    incremental = Incremental(Model(network), image)
    together = incremental.outputs(inputs, boxes)
    one_by_one = [incremental.outputs(inputs[n : n + 1], [box]) for n, box in enumerate(boxes)]
    assert_close(together, torch.cat(one_by_one), 1e-12)
    assert_close(together, plain(Model(network), inputs), 1e-9)


def test_a_box_that_changes_nothing_or_everything() -> None:
    network, image = calibrated(monai("UNet, batch norm", 2)).double(), weight(1, 40, 35)
    model = Model(network)
    incremental = Incremental(model, image)
    same = incremental.outputs(image[None], [(slice(3, 9), slice(4, 6))])
    assert_close(same, plain(model, image[None]), 1e-12)
    other = weight(2, 1, 40, 35)
    result = incremental.outputs(other, [(slice(None), slice(None))] * 2)
    assert_close(result, plain(model, other), 1e-12)


@pytest.mark.parametrize("name", ["UNet, batch norm", "UNet", "ResNet18", "SEResNet50"])
def test_changes_at_a_layer(name: str) -> None:
    network = calibrated(monai(name, 2)).double()
    image, model = weight(1, 32, 32), Model(network)
    paths = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    incremental = Incremental(model, image)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]):
        tap = Tap(path)

        def without(values: Tensor) -> Tensor:
            kept = torch.ones(3, values.shape[1], 1, 1, dtype=values.dtype)
            kept[torch.arange(3), torch.arange(3) % values.shape[1]] = 0
            return values * kept

        with model.at_rest(), torch.no_grad(), tapping(network, (tap,), {tap: without}):
            expected = model(image.repeat(3, 1, 1, 1))
        with untouched(network):
            assert_close(incremental.outputs_with_changes({tap: without}, 3), expected, 1e-9)


def _convolved_cells(run: Callable[[], object]) -> int:
    """Number of input values of all convolutions, by the profiler of torch."""
    with torch.profiler.profile(record_shapes=True) as profile:
        run()
    shapes = [event.input_shapes[0] for event in profile.events() if _is_convolution(event.name)]
    return sum(int(np.prod(shape)) for shape in shapes)


def _is_convolution(name: str) -> bool:
    return name == "aten::_convolution"


def test_much_less_is_computed_where_operators_are_local() -> None:
    network, image = calibrated(monai("ResNet18", 3)), torch.randn(1, 64, 64, 64)
    incremental, model = Incremental(Model(network), image), Model(network)
    boxes: list[Box] = [(slice(28, 36),) * 3] * 2
    inputs = changed(image, boxes)
    incremental.outputs(inputs, boxes)
    partial = _convolved_cells(lambda: incremental.outputs(inputs, boxes))
    full = _convolved_cells(lambda: plain(model, inputs))
    assert 0 < partial < full / 4


def test_layers_before_a_change_are_not_computed_again() -> None:
    network, image = calibrated(monai("UNet", 2)), torch.randn(1, 32, 32)
    incremental = Incremental(Model(network), image)
    last = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)][-1]
    changes = {Tap(last): lambda values: values * 0}
    incremental.outputs_with_changes(changes, 3)
    assert _convolved_cells(lambda: incremental.outputs_with_changes(changes, 3)) == 0


def test_work_is_counted_and_the_choice_follows_it() -> None:
    local, image = Model(calibrated(monai("ResNet18", 3))), torch.randn(1, 64, 64, 64)
    box: Box = (slice(28, 36),) * 3
    incremental = Incremental(local, image)
    estimate = estimate_work(incremental, box)
    assert estimate.agrees
    assert estimate.gain > 4
    assert estimate.pays
    assert incremental.nbytes > image.nbytes
    assert estimate_work(incremental, box) == estimate


@pytest.mark.parametrize("name", ["UNet", "SegResNet", "SEResNet50"])
def test_activations_that_depend_on_the_changed_image_are_not_kept(name: str) -> None:
    mixed, image = Model(monai(name, 2)), torch.randn(1, 64, 64)
    box: Box = (slice(28, 36),) * 2
    incremental = Incremental(mixed, image)
    estimate = estimate_work(incremental, box)
    assert estimate.gain < 1.25
    assert not estimate.pays
    kept = incremental.nbytes
    for seed in range(3):
        incremental.outputs(changed(image, [box], seed), [box])
    assert incremental.nbytes == kept
    assert incremental.supported


def test_boxes_must_fit_the_images() -> None:
    incremental = Incremental(Model(classifier(2)), torch.randn(1, 6, 6))
    with pytest.raises(InputError, match="1 boxes for inputs"):
        incremental.outputs(torch.randn(2, 1, 6, 6), [(slice(0, 1), slice(0, 1))])
    with pytest.raises(InputError, match="of shape \\(1, 6, 6\\)"):
        incremental.outputs(torch.randn(1, 1, 3, 3), [(slice(0, 1), slice(0, 1))])


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_reaches_hold_every_cell_that_is_read(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    taps, extent = dilation * np.arange(kernel), dilation * (kernel - 1) + 1
    down = Reach.strided(7, -padding, stride, extent)
    for output in range(7):
        cells = output * stride - padding + taps
        assert (down.first[output], down.last[output]) == (cells.min(), cells.max())
    up = Reach.transposed(20, -padding, stride, extent)
    sources = np.arange(-30, 30)
    reached = sources[:, None] * stride - padding + taps[None]
    for output in range(20):
        cells = sources[(reached == output).any(axis=1)]
        assert up.first[output] <= min(cells, default=up.last[output])
        assert up.last[output] >= max(cells, default=up.first[output])


def test_boxes_grow_by_the_kernel_and_stay_on_the_grid() -> None:
    boxes = BoxSet(np.array([[4], [0], [9]]), (2,))
    same = affected_boxes(boxes, [Reach.strided(11, -1, 1, 3)], (11,))
    assert same.starts.ravel().tolist() == [3, 0, 7]
    assert same.size == (4,)
    halved = affected_boxes(boxes, [Reach.strided(6, -1, 2, 3)], (6,))
    assert halved.starts.ravel().tolist() == [2, 0, 4]
    assert halved.size == (2,)
    content = crop(torch.arange(11.0)[None, None], BoxSet(np.array([[-1], [9]]), (3,)), fill=-5)
    assert content[:, 0].tolist() == [[-5, 0, 1], [9, 10, -5]]
