"""A matrix of links between concepts of two layers: shared forwards against a loop over pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.harness import race
from benchmarks.page import Table, seconds, times
from voxplain import zoo
from voxplain.concepts.links.analysis import LinkSettings, link
from voxplain.concepts.links.nodes import ConceptUnits
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.grid import Grid
from voxplain.image import Image

HEADER = (
    "network",
    "image",
    "links",
    "loop over pairs",
    "shared forwards",
    "loop / shared",
    "by CPU time",
    "weights differ by",
)
_SETTINGS = LinkSettings(null_sets=0, screen=0)


def run(quick: bool = False) -> Table:
    """The bottleneck of a U-Net and the layer behind it, in 2-D and 3-D, without random sets."""
    nodes = 4 if quick else 32
    sizes = {2: 32, 3: 16} if quick else {2: 96, 3: 32}
    rows = [_row(rank, size, nodes) for rank, size in sizes.items()]
    note = (
        "Both measure necessity and sufficiency of every pair over two cases; the loop runs the "
        "whole network for each pair, one image at a time: once with the whole layer replaced, "
        "once with the units of the source and once with all others. It is run for "
        "a row of the matrix, and its time multiplied."
    )
    return Table("links", HEADER, rows, (note,))


def _row(rank: int, size: int, count: int) -> list[str]:
    torch.manual_seed(0)
    network = zoo.unet(rank, 1, 2, (16, 32, 64), norm="batch").eval()
    shape = (size,) * rank
    cohort = Cohort.of(
        [
            CohortCase(f"{n}", f"{n}", Image(torch.randn(1, *shape), Grid.default(shape)))
            for n in (0, 1)
        ]
    )
    sources, targets = _nodes("bottleneck", 64, count), _nodes("dec2", 32, count)
    found: list[Tensor] = []

    def shared() -> None:
        links = link(network, cohort, [*sources, *targets], settings=_SETTINGS)
        found.append(torch.from_numpy(links.matrices[0].array("weight")))

    def loop() -> None:
        found.append(_loop(network, cohort, sources[:1], targets))

    timings = race({"shared": shared, "loop": loop}, 2)
    apart = float((found[1] - found[0][:1]).abs().max())
    wall, cpu = (count * ratio for ratio in timings["loop"].times(timings["shared"]))
    return [
        f"U-Net {rank}-D",
        " x ".join(map(str, shape)),
        f"{count} x {count}",
        seconds(count * timings["loop"].seconds),
        seconds(timings["shared"].seconds),
        times(wall),
        times(cpu),
        f"{apart:.0e}",
    ]


def _nodes(layer: str, channels: int, count: int) -> list[ConceptUnits]:
    """Concepts of neighboring channels."""
    size = max(1, channels // count)
    return [
        ConceptUnits(f"{layer} {n}", Tap(layer), UnitSet(tuple(range(n * size, (n + 1) * size))))
        for n in range(count)
    ]


def _loop(
    network: torch.nn.Module,
    cohort: Cohort,
    sources: Sequence[ConceptUnits],
    targets: Sequence[ConceptUnits],
) -> Tensor:
    """Weights, one pair after the other, each with forwards of its own."""
    cases = list(cohort)
    pairs = list(zip(cases, cases[::-1], strict=True))
    sums = torch.zeros(3, len(sources), len(targets), dtype=torch.float64)
    for case, donor in pairs:
        context = Context.open(network, case.image)
        given = observe(Context.open(network, donor.image), (sources[0].tap,))[sources[0].tap]
        clean = observe(context, (targets[0].tap,))[targets[0].tap]
        for i, source in enumerate(sources):
            for j, target in enumerate(targets):
                changes = ((UnitSet(), True), (source.units, False), (source.units, True))
                for part, (units, outside) in enumerate(changes):
                    replaced = Replacement(source.tap, units, given, outside)
                    seen = observe(context, (target.tap,), (replaced,))[target.tap]
                    change = (seen - clean)[list(target.units.channels)]
                    sums[part, i, j] += float(change.double().square().sum())
    total, alone, others = sums
    return ((alone / total).clamp(min=0) * (1 - others / total).clamp(min=0)).sqrt()
