"""Integrated gradients alone, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Floor, difference, race
from benchmarks.networks import PIXELWISE, classifier, segmenter
from benchmarks.page import Table, row
from benchmarks.peers import Captum

HEADER = (
    "network and images",
    "voxplain",
    "captum",
    "captum / voxplain",
    "by CPU time",
    "voxplain / floor",
    "maps differ by",
    "with its delta / voxplain",
)
STEPS = 32


@dataclass(frozen=True)
class Case:
    """One network with its images, as each side sees it."""

    title: str
    network: nn.Module
    images: Tensor
    target: object
    score: Callable[[Tensor], Tensor]
    captum: Captum


def run(quick: bool = False) -> Table:
    """A residual classifier with one image and with eight; a segmenter."""
    flat, patch, solid = (32, 16, 16) if quick else (128, 32, 48)
    cases = [
        _classifier(2, flat, 1),
        _classifier(2, flat, 8),
        _classifier(3, patch, 1),
        _segmenter(solid),
    ]
    rows, batches = [], []
    for case in cases:
        captum = case.captum.tuned(STEPS)
        rows.append(_row(case, captum, repeats=1 if quick else 3))
        batches.append(str(captum.batch))
    note = (
        f"{STEPS} Gauss-Legendre steps from zero. Captum's fastest internal_batch_size, row by "
        f"row: {', '.join(batches)}. voxplain always adds a forward of the image that fixes and "
        "checks the target, one of the baseline for the completeness residual, and a hash of the "
        "weights for the sidecar; the last column is captum with its convergence delta."
    )
    return Table("integrated", HEADER, rows, (note,))


def _classifier(rank: int, size: int, batch: int) -> Case:
    network, images = classifier(rank, size, batch)
    title = f"{rank}-D residual classifier, {batch} x {'x'.join([str(size)] * rank)}"
    captum = Captum(network, images, target=1)
    return Case(title, network, images, 1, lambda output: output[:, 1], captum)


def _segmenter(size: int) -> Case:
    network, image, score = segmenter(size)
    title = f"3-D U-Net, 1 x {size}x{size}x{size}"
    return Case(title, network, image, PIXELWISE, score.score, Captum(score, image))


def _row(case: Case, captum: Captum, repeats: int) -> list[str]:
    method = {"name": "integrated_gradients", "steps": STEPS}

    def ours() -> Tensor:
        return vx.explain(case.network, case.images, method, case.target)[method["name"]].map

    def theirs() -> Tensor:
        return captum.integrated_gradients(STEPS)

    def with_delta() -> object:
        return captum.integrated_gradients_with_delta(STEPS)

    floor = Floor(case.network, case.images[:1], case.score).of(STEPS * len(case.images))
    contestants = {"voxplain": ours, "captum": theirs, "floor": floor, "delta": with_delta}
    timings = race(contestants, repeats)
    complete, _ = timings.pop("delta").times(timings["voxplain"])
    agreement = f"{difference(ours(), theirs()):.0e}"
    return [*row(case.title, timings, agreement), f"{complete:.2f}"]
