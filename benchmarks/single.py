"""One method at a time, on networks whose ReLUs are modules used once, as captum needs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum import attr
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Floor, Work, difference, race
from benchmarks.networks import PIXELWISE, classifier, segmenter
from benchmarks.page import Table, row
from benchmarks.peers import Captum

HEADER = (
    "method",
    "voxplain",
    "captum",
    "captum / voxplain",
    "by CPU time",
    "voxplain / floor",
    "maps differ by",
)
SAMPLES = 25
PASSES = {"deep_lift": 2, "smoothgrad": SAMPLES}


def run(quick: bool = False) -> Table:
    """Saliency, guided backprop, deconvolution, DeepLIFT and SmoothGrad of 25 copies."""
    repeats = 1 if quick else 7
    flat, solid = (32, 16) if quick else (128, 64)
    classifying, image = classifier(2, flat)
    segmenting, volume, score = segmenter(solid)
    rows = _rows(
        f"2-D residual classifier, {flat} x {flat}",
        (classifying, image, 1, lambda output: output[:, 1]),
        Captum(classifying, image, target=1).tuned(SAMPLES),
        repeats,
    ) + _rows(
        f"3-D U-Net, {solid}^3",
        (segmenting, volume, PIXELWISE, score.score),
        Captum(score, volume).tuned(SAMPLES),
        repeats,
    )
    note = (
        "The floor is 1 forward and backward of the bare network, 2 for DeepLIFT, 25 for "
        "SmoothGrad. Each call of voxplain also runs one forward that fixes the target and checks "
        "the output. Noise differs between the two, so SmoothGrad's maps are not compared."
    )
    return Table("single", HEADER, rows, (note,))


def _rows(
    title: str,
    asked: tuple[nn.Module, Tensor, object, Callable[[Tensor], Tensor]],
    captum: Captum,
    repeats: int,
) -> list[list[str]]:
    network, image, target, score = asked
    floor = Floor(network, image, score)
    rows = []
    for name, peer in _peers(captum).items():
        method = {"name": name, "of": "saliency"} if name == "smoothgrad" else name

        def ours(method: object = method) -> Tensor:
            (found,) = vx.explain(network, image, method, target).values()
            return found.map

        contestants = {"voxplain": ours, "captum": peer, "floor": floor.of(PASSES.get(name, 1))}
        timings = race(contestants, repeats)
        agreed = "" if name == "smoothgrad" else f"{difference(ours(), peer()):.0e}"
        rows.append(row(f"{name}, {title}", timings, agreed))
    return rows


def _peers(captum: Captum) -> dict[str, Work]:
    noise = 0.15 * float(captum.images.max() - captum.images.min())

    def smoothgrad() -> Tensor:
        torch.manual_seed(0)
        saliency = attr.Saliency(captum.network)
        return captum.smoothgrad(saliency, SAMPLES, noise, "smoothgrad", abs=False)

    return {
        "saliency": captum.saliency,
        "guided_backprop": captum.guided_backprop,
        "deconvolution": captum.deconvolution,
        "deep_lift": captum.deep_lift,
        "smoothgrad": smoothgrad,
    }
