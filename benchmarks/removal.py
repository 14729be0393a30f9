"""Deletion and insertion of a map, voxel by voxel, against Quantus; and what more levels hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import voxplain as vx
from benchmarks.harness import Forwards, Timing, difference, race
from benchmarks.networks import PIXELWISE, classifier, segmenter
from benchmarks.page import Table, seconds, times
from voxplain.metrics import evaluate

HEADER = (
    "deletion and insertion",
    "network",
    "voxplain",
    "Quantus 0.6.0",
    "Quantus / voxplain",
    "by CPU time",
    "voxplain / floor",
    "curves differ by",
    "most memory at 32 and 256 levels",
)
TARGET = 1


def run(quick: bool = False) -> Table:
    """Both curves of one map: 96 levels, removed voxels become 0."""
    size, levels = (24, 24) if quick else (48, 96)
    network, image = classifier(3, size)
    rows = [_row("residual classifier", network, image, TARGET, network, levels, quick)]
    dense, image, score = segmenter(size)
    rows.append(_row("U-Net", dense, image, PIXELWISE, _Columns(score), levels, quick))
    note = (
        f"{size}^3, one map, {levels} levels, removed voxels become 0 on both sides; Quantus "
        "takes one image per step. On both sides the voxels of the map and of its negative are "
        "removed (`pixel_flipping`), which are the passes of deletion and insertion. The floor "
        "is the forwards of the bare network for the "
        f"{2 * levels} distinct images: both orders share their ends. Of the segmentation "
        "Quantus is given the score that voxplain explains, since it knows no other. Gradients "
        "leave no equal values, so that the order is the same on both sides."
    )
    return Table("removal", HEADER, rows, (note,))


class _Columns(nn.Module):
    """A score per image as the second of two columns."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, image: Tensor) -> Tensor:
        score = self.score(image)[:, None]
        return torch.cat([-score, score], dim=1)


def _row(
    about: str,
    network: nn.Module,
    image: Tensor,
    target: Any,
    peer: nn.Module,
    levels: int,
    quick: bool,
) -> list[str]:
    map = vx.explain(network, image, "saliency", target)["saliency"].map
    maps = {"most": map, "least": -map}

    def ours(steps: int = levels) -> Any:
        asked = [{"name": "pixel_flipping", "levels": steps, "fill": 0}]
        return evaluate(network, image, maps, asked, target, controls=False)

    quantus = _Quantus(peer, image, map, levels)
    repeats = 1 if quick else 3
    floor = Forwards(network, image).of(2 * levels)
    timings = race({"voxplain": ours, "quantus": quantus.both, "floor": floor}, repeats)
    return _filled(about, timings, _apart(ours(), quantus), [_held(ours, n) for n in (32, 256)])


def _filled(about: str, timings: Mapping[str, Timing], apart: float, held: list[int]) -> list[str]:
    ours, quantus = timings["voxplain"], timings["quantus"]
    wall, cpu = quantus.times(ours)
    sizes = " and ".join(f"{size / 2**20:.0f} MiB" for size in held)
    above = times(ours.times(timings["floor"])[1])
    measured = [seconds(ours.seconds), seconds(quantus.seconds), times(wall), times(cpu), above]
    return ["one map", about, *measured, f"{apart:.0e}", sizes]


class _Quantus:
    """Pixel flipping of a map and of its negative.

    Args:
        network: Two columns of scores.
        image: ``(1, C, *spatial)``.
        map: ``(1, C, *spatial)``.
        levels: Number of steps.
    """

    def __init__(self, network: nn.Module, image: Tensor, map: Tensor, levels: int) -> None:
        import quantus

        warnings.filterwarnings("ignore", module="quantus")
        self.network, self.image = network.eval(), image.numpy()
        self.map = map.numpy()
        self.metric = quantus.PixelFlipping(
            features_in_step=self.image[0].size // levels,
            perturb_baseline=0.0,
            normalise=False,
            disable_warnings=True,
            display_progressbar=False,
        )

    def both(self) -> list[np.ndarray]:
        """The two curves, without the unchanged image."""
        return [self._curve(self.map), self._curve(-self.map)]

    def _curve(self, map: np.ndarray) -> np.ndarray:
        found = self.metric(
            self.network,
            self.image,
            np.array([TARGET]),
            a_batch=map,
            softmax=False,
            channel_first=True,
            device="cpu",
        )
        return np.asarray(found)[0]


def _apart(scores: Any, quantus: _Quantus) -> float:
    """Of both curves, which voxplain gives as what is lost of the score of the image."""
    with torch.no_grad():
        whole = float(quantus.network(torch.from_numpy(quantus.image))[0, TARGET])
    ours = [
        torch.tensor([whole - lost for _, lost in row.curve[1:]], dtype=torch.float64)
        for row in scores.rows
    ]
    theirs = [torch.from_numpy(np.asarray(curve)).double() for curve in quantus.both()]
    return difference(torch.cat(ours), torch.cat(theirs))


def _held(work: Any, levels: int) -> int:
    """Most bytes that torch held at once during a run of so many levels."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work(levels)
    held = most = 0
    events = profiled.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
