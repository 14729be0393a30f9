"""Forwards of images that differ in a box: the whole network against the cone of the box."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import difference, race
from benchmarks.page import Table, seconds, times
from voxplain.engine.acceleration.incremental import GAIN, Incremental, estimate_work

HEADER = (
    "network",
    "image",
    "full, per box",
    "incremental, per box",
    "full / incremental",
    "by CPU time",
    "by counted work",
    "auto",
    "kept",
    "outputs differ by",
)
_SHARE, _BOXES = 6, 4


def run(quick: bool = False) -> Table:
    """Boxes of a sixth of each axis, in the middle, at the border and between."""
    sizes = (32,) if quick else (96, 160)
    rows = [row for size in sizes for row in _rows(size, quick)]
    note = (
        f"{_BOXES} boxes of a sixth of each axis at random places, one of them in a corner; full "
        f"forwards in batches of 1 at 160^3 and of 2 below, incremental ones of {_BOXES // 2}; "
        "times with the unperturbed activations kept, whose memory is given. Counted work is what "
        f"incremental: auto decides by, from {GAIN} on."
    )
    return Table("incremental", HEADER, rows, (note,))


def _rows(size: int, quick: bool) -> Iterator[list[str]]:
    for name, build in _NETWORKS.items():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = build(4 if quick else 1).eval()
        yield _row(name, vx.Model(network), size, 1 if quick or size > 96 else 2)


def _row(name: str, model: vx.Model, size: int, repeats: int) -> list[str]:
    image, side = torch.randn(1, size, size, size), size // _SHARE
    starts = torch.randint(0, size - side + 1, (_BOXES, 3)).tolist()
    starts[0] = [0, 0, 0]
    boxes = [tuple(slice(low, low + side) for low in start) for start in starts]
    incremental = Incremental(model, image)

    def whole() -> Tensor:
        batch = 1 if size > 96 else 2
        return _in_batches(lambda rows: model.output(_without(image, boxes[rows])), batch)

    def cones() -> Tensor:
        return _in_batches(
            lambda rows: incremental.outputs(_without(image, boxes[rows]), boxes[rows]), _BOXES // 2
        )

    apart = difference(cones(), whole())
    timings = race({"full": whole, "incremental": cones}, repeats, {"full": _nothing})
    wall, cpu = timings["full"].times(timings["incremental"])
    middle = slice(size // 2 - side // 2, size // 2 - side // 2 + side)
    counted = estimate_work(Incremental(model, image), (middle,) * 3)
    return [
        name,
        f"{size}^3",
        seconds(timings["full"].seconds / _BOXES),
        seconds(timings["incremental"].seconds / _BOXES),
        times(wall),
        times(cpu),
        times(counted.gain),
        "incremental" if counted.pays else "full",
        f"{math.ceil(incremental.nbytes / 2**20)} MB",
        f"{apart:.0e}",
    ]


def _without(image: Tensor, boxes: list[tuple[slice, ...]]) -> Tensor:
    """The image with one box each set to 0."""
    inputs = image.repeat(len(boxes), 1, 1, 1, 1)
    for row, box in enumerate(boxes):
        inputs[(row, slice(None), *box)] = 0
    return inputs


def _in_batches(outputs: Callable[[slice], Tensor], batch: int) -> Tensor:
    return torch.cat([outputs(slice(low, low + batch)) for low in range(0, _BOXES, batch)])


def _nothing() -> None:
    """The comparison of the outputs has warmed up both sides already."""


def _resnet(shrink: int) -> nn.Module:
    from monai.networks.nets import ResNet

    widths = [width // shrink for width in (64, 128, 256, 512)]
    return ResNet("basic", [2, 2, 2, 2], widths, 3, 1, conv1_t_stride=2, num_classes=2)


def _densenet(shrink: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    return DenseNet121(3, 1, 2, init_features=64 // shrink, growth_rate=32 // shrink)


def _unet(shrink: int, norm: str) -> nn.Module:
    from monai.networks.nets import UNet

    widths = [width // shrink for width in (16, 32, 64, 128, 256)]
    return UNet(3, 1, 2, widths, (2, 2, 2, 2), num_res_units=2, norm=norm)


def _basic_unet(shrink: int) -> nn.Module:
    from monai.networks.nets import BasicUNet

    widths = [width // shrink for width in (32, 32, 64, 128, 256, 32)]
    return BasicUNet(3, 1, 2, features=widths, norm="batch")


_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "ResNet-18": _resnet,
    "DenseNet-121": _densenet,
    "U-Net, batch norm": lambda shrink: _unet(shrink, "batch"),
    "U-Net, instance norm": lambda shrink: _unet(shrink, "instance"),
    "Basic U-Net, batch norm": _basic_unet,
}
