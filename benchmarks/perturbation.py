"""Boxes, regions and coalitions: what the engine adds to the forwards, and how many it saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum import attr
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Timing, Work, difference, race
from benchmarks.networks import PIXELWISE, segmenter
from benchmarks.page import Table, seconds, times
from voxplain.attribution.methods.occlusion import Occlusion
from voxplain.engine.context import Context
from voxplain.engine.masks import Boxes, Masks, SlidingBox
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import StreamInput
from voxplain.regions import segment

HEADER = (
    "what",
    "network",
    "masks",
    "voxplain",
    "captum, its best batch",
    "captum / voxplain",
    "by CPU time",
    "captum one at a time / voxplain",
    "without the forwards themselves",
    "maps differ by",
)
REGIONS, SAMPLES = 512, 600
BATCHES = (1, 4)


class Trivial(nn.Module):
    """Two scores that cost next to nothing, so that the engine is all that is timed."""

    def forward(self, image: Tensor) -> Tensor:
        score = image.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([-score, score], dim=1)


def run(quick: bool = False) -> Table:
    """Occlusion, feature ablation and KernelSHAP against captum; windows against all windows."""
    rows = [
        *_on_a_trivial_network(24 if quick else 96, quick),
        _on_a_network(24 if quick else 32, quick),
        _in_windows(*((48, 16) if quick else (192, 64)), quick=quick),
    ]
    notes = (
        "Captum's best batch is the faster of 1 and 4 at a time (`perturbations_per_eval`; 16 were "
        "slower), one turn each; one at a time is its default. The trivial network is the mean of "
        "the image, which leaves the engine alone; fills are constant, since captum knows no "
        "other. Samples of KernelSHAP are random on both sides, their values not compared. "
        f"{_WINDOWED_NOTE}",
    )
    return Table("perturbation", HEADER, rows, notes)


_WINDOWED_NOTE = (
    "In the last row, captum stands for computing every window anew for every box, as any library "
    "does that is given the windowed inference as a function. Its times are per box, from a few "
    "of the boxes of the default occlusion, spread over the volume: voxplain's from 2 and 12 of "
    "them, which leaves out the two passes over all windows that it takes before the first box."
)


def _on_a_trivial_network(size: int, quick: bool) -> Iterator[list[str]]:
    torch.manual_seed(0)
    network, image = Trivial().eval(), torch.rand(1, 1, size, size, size)
    labels = segment({"kind": "supervoxels", "count": 16 if quick else REGIONS}, image[0]).labels
    yield _occlusion(f"occlusion, {size}^3", "mean of the image", network, image, 1, quick)
    regions = {"kind": "labels", "labels": labels + 1}
    mask = labels[None, None]
    count = int(labels.max()) + 1

    def ablation(batch: int) -> Tensor:
        return attr.FeatureAblation(network).attribute(
            image, 0.0, 1, feature_mask=mask, perturbations_per_eval=batch
        )

    asked: dict[str, Any] = {"name": "feature_ablation", "regions": regions, "fill": 0}
    ours = partial(_map, network, image, asked, 1)
    title = f"feature ablation, {size}^3"
    bare = partial(network, image)
    yield _row(title, "mean of the image", count, ours, ablation, quick, bare=bare)
    samples = 40 if quick else SAMPLES

    def kernel_shap(batch: int) -> Tensor:
        torch.manual_seed(0)
        return attr.KernelShap(network).attribute(
            image, 0.0, 1, feature_mask=mask, n_samples=samples, perturbations_per_eval=batch
        )

    asked = {"name": "kernel_shap", "regions": regions, "fill": 0, "samples": samples}
    title, ours = f"KernelSHAP, {count} regions", partial(_map, network, image, asked, 1)
    about = "mean of the image"
    yield _row(title, about, samples, ours, kernel_shap, quick, compared=False, bare=bare)


def _on_a_network(size: int, quick: bool) -> list[str]:
    network, image, score = segmenter(size)
    return _occlusion(
        f"occlusion, {size}^3", "U-Net", network, image, PIXELWISE, quick, peer=_Column(score)
    )


class _Column(nn.Module):
    """One score per image as a column, as captum wants it."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, image: Tensor) -> Tensor:
        return self.score(image)[:, None]


def _occlusion(
    title: str,
    about: str,
    network: nn.Module,
    image: Tensor,
    target: object,
    quick: bool,
    peer: nn.Module | None = None,
) -> list[str]:
    side = image.shape[2] // (2 if quick else 6)
    window, stride = (image.shape[1], *(side,) * 3), (image.shape[1], *((side + 1) // 2,) * 3)

    def captum(batch: int) -> Tensor:
        return attr.Occlusion(peer or network).attribute(
            image, window, stride, 0.0, 0 if peer else 1, perturbations_per_eval=batch
        )

    asked = {"name": "occlusion", "window": side, "fill": 0}
    count = len(range(0, image.shape[2] - side + stride[1], stride[1])) ** 3
    bare = None if peer else partial(network, image)
    ours = partial(_map, network, image, asked, target)
    return _row(title, about, count, ours, captum, quick, bare=bare)


def _map(model: vx.Model | nn.Module, image: Tensor, method: object, target: object) -> Tensor:
    (found,) = vx.explain(model, image, method, target).values()
    return found.map


def _row(
    title: str,
    about: str,
    masks: int,
    ours: Any,
    captum: Any,
    quick: bool,
    compared: bool = True,
    bare: Work | None = None,
) -> list[str]:
    """Captum takes minutes, so that each of its batches has one turn, and the best one counts."""
    maps: dict[int, Tensor] = {}

    def peer(batch: int) -> None:
        maps[batch] = captum(batch)

    own = race({"voxplain": ours}, 1 if quick else 3)["voxplain"]
    works: dict[str, Work] = {str(batch): partial(peer, batch) for batch in BATCHES}
    theirs = race(works, 1, dict.fromkeys(works, _nothing))
    best = min(BATCHES, key=lambda batch: theirs[str(batch)].seconds)
    timings = {"voxplain": own, "captum": theirs[str(best)], "one": theirs["1"]}
    agreed = f"{difference(ours(), maps[best]):.0e}" if compared else ""
    return _filled(title, about, masks, timings, agreed, _overhead(timings, bare, masks))


def _overhead(timings: dict[str, Timing], bare: Work | None, masks: int) -> str:
    """How many times more captum adds to the forwards, one at a time, than voxplain does."""
    if bare is None:
        return ""

    def forwards() -> None:
        with torch.inference_mode():
            for _ in range(masks):
                bare()

    floor = race({"bare": forwards}, 2)["bare"].seconds
    ours, one = (timings[name].seconds - floor for name in ("voxplain", "one"))
    return times(one / max(ours, 1e-3))


def _nothing() -> None:
    """Instead of a warm-up that would take minutes."""


def _filled(
    title: str,
    about: str,
    masks: int,
    timings: dict[str, Timing],
    agreed: str,
    overhead: str = "",
) -> list[str]:
    ours, captum = timings["voxplain"], timings["captum"]
    wall, cpu = captum.times(ours)
    one = times(timings["one"].times(ours)[0]) if "one" in timings else ""
    measured = [seconds(ours.seconds), seconds(captum.seconds), times(wall), times(cpu), one]
    return [title, about, f"{masks:,}", *measured, overhead, agreed]


@dataclass(frozen=True)
class _SomeBoxes(SlidingBox):
    """A few of the boxes, spread evenly."""

    count: int = 3

    def masks(self, item: StreamInput, context: Context) -> Masks:
        """Every so many."""
        every = super().masks(item, context)
        assert isinstance(every, Boxes)
        picks = torch.linspace(0, len(every) - 1, self.count + 2)[1:-1].long().tolist()
        return Boxes(tuple(every.boxes[pick] for pick in picks), every.shape, every.size)


class _SomeOcclusion(Occlusion):
    """Occlusion with a few of its boxes."""

    count: int = 3

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """The default boxes, thinned out."""
        (request,) = super().requests(context)
        boxes = _SomeBoxes(self.window, self.stride, self.count)
        return (MaskRequest(boxes, request.fill, request.reducer),)


def _in_windows(size: int, side: int, quick: bool) -> list[str]:
    """A volume through a network that sees a window at a time; all times are per box."""
    network, image = _large(size)
    model = vx.Model(network, window={"size": side, "overlap": 0.25})
    layout = model.layout((size,) * 3)
    assert layout is not None
    few, many = (1, 2) if quick else (2, 12)
    maps: dict[str, Tensor] = {}

    def ours(count: int) -> None:
        method = _SomeOcclusion(fill=0.0, count=count)
        maps[f"ours {count}"] = _map(model, image, method, PIXELWISE)

    def anew() -> None:
        maps["anew"] = _all_windows(model, image, _SomeOcclusion(fill=0.0, count=few))

    works: dict[str, Work] = {"few": partial(ours, few), "many": partial(ours, many), "anew": anew}
    timings = race(works, 1, dict.fromkeys(works, _nothing))
    each = Timing(*(_slope(timings["few"], timings["many"], many - few)))
    captum = timings["anew"]
    captum = Timing(*([value / (few + 1) for value in part] for part in (captum.wall, captum.cpu)))
    about = f"U-Net, {len(layout)} windows of {side}^3"
    agreed = f"{difference(maps[f'ours {few}'], maps['anew']):.0e}"
    pair = {"voxplain": each, "captum": captum}
    return _filled(f"one box of occlusion, {size}^3", about, 1, pair, agreed)


def _slope(few: Timing, many: Timing, boxes: int) -> tuple[list[float], list[float]]:
    """Wall-clock and CPU time of one more box."""
    return [(many.seconds - few.seconds) / boxes], [(many.cpu_seconds - few.cpu_seconds) / boxes]


def _large(size: int) -> tuple[nn.Module, Tensor]:
    """A volume that the whole network could not see at once."""
    network, _, _ = segmenter(32)
    torch.manual_seed(0)
    return network, torch.randn(1, 1, size, size, size)


def _all_windows(model: vx.Model, image: Tensor, method: _SomeOcclusion) -> Tensor:
    """The same map with the whole windowed inference for every box."""
    (request,) = method.requests(Context(model, image))
    masks = request.masks.masks(StreamInput(image[0], 0, ""), Context(model, image))
    assert isinstance(masks, Boxes)
    with torch.no_grad():
        output = model.output(image)
        where = output.argmax(1) == PIXELWISE["label"]
        whole = float(output[:, 1][where].sum(dtype=torch.float64))
        drops = []
        for box in masks.boxes:
            shown = image.clone()
            shown[(..., *box)] = 0
            score = model.output(shown)[:, 1][where].sum(dtype=torch.float64)
            drops.append(whole - float(score))
    summed = masks.summed(torch.tensor(drops, dtype=torch.float64))
    return (summed / masks.coverage.clamp_min(1))[None, None].to(image)
