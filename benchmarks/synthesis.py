"""Synthesis: 16 channels together, one by one, and by a plain loop as published libraries have."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import Timing, Work, race
from benchmarks.page import Table
from voxplain.image import Image
from voxplain.synthesis import ImageStatistics, measure, synthesize
from voxplain.zoo import unet2d, unet3d

HEADER = ("16 channels", "seconds", "together / this", "by CPU time", "mean activation")
CHANNELS = 16


def run(quick: bool = False) -> Table:
    """A 2-D and a 3-D U-Net: Fourier parametrization, jitter, rotation and scale, Adam."""
    repeats, steps = (1, 4) if quick else (3, 32)
    rows: list[list[str]] = []
    for rank, side in ((2, 32 if quick else 96), (3, 12 if quick else 32)):
        torch.manual_seed(0)
        network = (unet2d, unet3d)[rank - 2](1, 2, (16, 16, 32)).eval()
        images = [Image.from_array(torch.rand(1, *(side,) * rank), spacing=1.0) for _ in range(2)]
        rows += _rows(f"{rank}-D U-Net, {side}^{rank}", network, measure(images), steps, repeats)
    note = (
        f"{steps} steps for each channel of the second convolution. The plain loop is written as "
        "in published libraries: one channel at a time, hooks on the layer, a Fourier image with "
        "1/f amplitudes, random jitter, rotation and scale, Adam; it runs the whole network and "
        "takes gradients of its weights as well, as those do."
    )
    return Table("synthesis", HEADER, rows, (note,))


def _rows(
    title: str, network: nn.Module, statistics: ImageStatistics, steps: int, repeats: int
) -> list[list[str]]:
    found: dict[str, float] = {}
    method = {
        "name": "feature_visualization",
        "steps": steps,
        "transforms": {"blur": 0, "noise": 0, "field": 0, "dropout": 0, "tilt": 10},
        "regularization": {},
    }
    units = [f"enc1.relu2:{channel}" for channel in range(CHANNELS)]

    def together() -> None:
        results = synthesize(network, statistics, method, units)
        found["together"] = _mean([result.scores[0] for result in results.values()])

    def one_by_one() -> None:
        every = [synthesize(network, statistics, method, unit) for unit in units]
        found["one by one"] = _mean([r.scores[0] for each in every for r in each.values()])

    def plain_loop() -> None:
        scores = [_plain(network, statistics, channel, steps) for channel in range(CHANNELS)]
        found["plain loop"] = _mean(scores)

    contestants: Mapping[str, Work] = {
        "together": together,
        "one by one": one_by_one,
        "plain loop": plain_loop,
    }
    timings = race(contestants, repeats)
    return [_row(f"{name}, {title}", timings, name, found[name]) for name in contestants]


def _row(title: str, timings: Mapping[str, Timing], name: str, score: float) -> list[str]:
    wall, cpu = timings["together"].times(timings[name])
    return [title, f"{timings[name].seconds:.2f}", f"{wall:.2f}", f"{cpu:.2f}", f"{score:.3f}"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _plain(network: nn.Module, statistics: ImageStatistics, channel: int, steps: int) -> float:
    """One channel, by a loop as in published libraries; the activation of the last image."""
    shape = statistics.grid.shape
    caught: dict[str, Tensor] = {}

    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        caught["layer"] = output

    handle = network.get_submodule("enc1.relu2").register_forward_hook(hook)
    axes = [torch.fft.fftfreq(size) for size in shape[:-1]] + [torch.fft.rfftfreq(shape[-1])]
    radius = sum(
        line.square().view(-1, *(1,) * (len(shape) - 1 - axis)) for axis, line in enumerate(axes)
    )
    scale = 1 / torch.as_tensor(radius).sqrt().clamp_min(1 / max(shape))
    scale = scale / scale.square().mean().sqrt()
    torch.manual_seed(channel)
    spectrum = (0.1 * torch.randn(1, 1, *scale.shape, 2)).requires_grad_(True)
    adam = torch.optim.Adam([spectrum], lr=0.05)
    low, span = float(statistics.low[0]), float(statistics.range[0])

    def image() -> Tensor:
        values = torch.fft.irfftn(scale * torch.view_as_complex(spectrum), s=shape, norm="ortho")
        return low + span * torch.sigmoid(0.25 * values)

    for _ in range(steps):
        adam.zero_grad()
        network(_moved(image()))
        loss = -caught["layer"][:, channel].mean()
        loss.backward()
        adam.step()
    with torch.no_grad():
        network(image())
    handle.remove()
    return float(caught["layer"][:, channel].mean())


def _moved(image: Tensor) -> Tensor:
    """Random jitter, rotation and scale, one interpolation each, as published libraries chain."""
    rank = image.ndim - 2
    angle = 0.17 * (2 * torch.rand(()) - 1)
    turn = torch.eye(rank)
    turn[0, 0], turn[0, 1], turn[1, 0], turn[1, 1] = (
        angle.cos(),
        -angle.sin(),
        angle.sin(),
        angle.cos(),
    )
    size = torch.eye(rank) * (0.9 + 0.2 * torch.rand(()))
    shift = 0.08 * (2 * torch.rand(rank, 1) - 1)
    for matrix, offset in ((torch.eye(rank), shift), (turn, 0 * shift), (size, 0 * shift)):
        theta = torch.cat([matrix, offset], dim=1)[None]
        places = functional.affine_grid(theta, list(image.shape), align_corners=False)
        image = functional.grid_sample(image, places, padding_mode="border", align_corners=False)
    return image
