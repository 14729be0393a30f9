"""Dissection of many units against many concepts, against the bare forwards of the network."""

from __future__ import annotations

import threading
import time

import psutil
import torch
from torch import Tensor, nn

from benchmarks.harness import race
from benchmarks.page import Table, seconds, times
from voxplain.concepts.bank import ConceptBank
from voxplain.concepts.dissection import dissect
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import UnitSet
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.zoo import unet3d

HEADER = (
    "network",
    "cases",
    "units",
    "concepts",
    "bare forwards",
    "dissection",
    "dissection / forwards",
    "by CPU time",
    "memory above the forwards",
)
CHANNELS = ("flair", "t1", "t1ce", "t2")


def run(quick: bool = False) -> Table:
    """512 units and 20 concepts over volumes as large as a brain of 2 mm."""
    shape, cases = ((24, 24, 16), 4) if quick else ((72, 88, 72), 6)
    widths, wanted = ((4, 8), 24) if quick else ((32, 64, 128), 512)
    network = unet3d(len(CHANNELS), 4, widths).eval()
    cohort = Cohort.of([_case(number, shape) for number in range(cases)])
    units = _units(network, cohort[cohort.ids[0]], wanted)
    selection, scored = cohort.split()
    bank, forwards = _bank(), 2 * len(selection) + len(scored)

    def bare() -> None:
        with torch.no_grad():
            for number in range(forwards):
                network(cohort[cohort.ids[number % cases]].image.data[None])

    def whole() -> None:
        dissect(network, selection, bank, held_out=scored, units=units)

    # The forwards first: memory that a dissection leaves to the allocator is not theirs.
    before = _peak(bare)
    memory = max(0.0, _peak(whole) - before)
    timings = race({"bare": bare, "whole": whole}, 1 if quick else 3)
    wall, cpu = timings["whole"].times(timings["bare"])
    count = sum(len(each.channels) for each in units.values())
    row = [
        "3-D U-Net",
        f"{cases} of {' x '.join(map(str, shape))}",
        str(count),
        str(len(bank)),
        seconds(timings["bare"].seconds),
        seconds(timings["whole"].seconds),
        times(wall),
        times(cpu),
        f"{memory / 2**20:.0f} MB",
    ]
    note = (
        f"The bare network runs as often as in the dissection: {forwards} times, twice for each "
        "case on which thresholds are chosen and once for each that is scored. The dissection "
        "reads concepts, places units on the image, finds 256 thresholds per unit, counts all "
        "of them for every concept and compares each pair with 100 unrelated masks."
    )
    return Table("dissection", HEADER, [row], (note,))


def _case(number: int, shape: tuple[int, ...]) -> CohortCase:
    """An ellipsoid of noise with a lesion of three labels."""
    generator = torch.Generator().manual_seed(number)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
    distance = sum(axis**2 for axis in axes)
    center = 0.6 * torch.rand(3, generator=generator) - 0.3
    to_lesion = sum((axis - at) ** 2 for axis, at in zip(axes, center, strict=True))
    labels = sum((to_lesion < size).long() for size in (0.06, 0.03, 0.01))
    data = torch.randn(len(CHANNELS), *shape, generator=generator) + labels
    image = Image(data * (distance < 0.8), Grid.default(shape, 2.0), CHANNELS)
    assert isinstance(labels, Tensor)
    return CohortCase(f"case{number}", f"patient{number}", image, labels)


def _bank() -> ConceptBank:
    return ConceptBank.of(
        [
            {"kind": "labels", "names": {"WT": (1, 2, 3), "TC": (2, 3), "ET": 3, "ED": 1}},
            {"kind": "boundary", "of": "WT", "width": "2mm"},
            {"kind": "rim", "of": "WT", "width": "4mm"},
            {"kind": "core", "of": "WT", "depth": "4mm"},
            *({"kind": "ring", "of": "WT", "within": f"{length}mm"} for length in (5, 10, 20)),
            *({"kind": "band", "channel": name, "parts": 2} for name in CHANNELS),
            {"kind": "foreground", "width": "2mm"},
        ]
    )


def _units(network: nn.Module, case: CohortCase, wanted: int) -> dict[str, UnitSet]:
    """Channels of the convolutional stages, in order, as many as wanted."""
    layers, chosen = Context.open(network, case.image).layers, dict[str, UnitSet]()
    for tap in layers.taps(layers.stages):
        count = min(wanted, layers.channels(tap))
        wanted -= count
        if count:
            chosen[tap.path] = UnitSet(tuple(range(count)))
    return chosen


class _Watch(threading.Thread):
    """Looks at the memory of this process a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.done = 0, False

    def run(self) -> None:
        while not self.done:
            self.highest = max(self.highest, psutil.Process().memory_info().rss)
            time.sleep(0.01)


def _peak(work: object) -> float:
    """The most memory that the process has while it works, in bytes."""
    watch = _Watch()
    watch.start()
    assert callable(work)
    work()
    watch.done = True
    watch.join()
    return float(watch.highest)
