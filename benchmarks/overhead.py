"""What the engine itself costs: a trivial network, where everything else is next to nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import voxplain as vx
from benchmarks.harness import Floor, race
from benchmarks.page import Table
from benchmarks.peers import Captum

HEADER = ("on a network of 12 layers of a few voxels", "per pass", "per call")
FEW, MANY = 16, 116


def run(quick: bool = False) -> Table:
    """Time per pass and per call, one point at a time, from two numbers of steps."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 2)).eval()
    image = torch.rand(1, 1, 8, 8)
    floor = Floor(network, image, lambda output: output[:, 1])
    floor.batch = 1
    captum = Captum(network, image, target=1, batch=1)

    def ours(method: str, **asked: object) -> Callable[[int], object]:
        # A byte of memory allows one point at a time.
        return lambda steps: vx.explain(
            network, image, {"name": method, "steps": steps, **asked}, 1, memory=1
        )

    cases: dict[str, Callable[[int], object]] = {
        "the bare network": lambda steps: floor.of(steps)(),
        "captum, integrated gradients": captum.integrated_gradients,
        "voxplain, integrated gradients": ours("integrated_gradients"),
        "voxplain, internal influence of all 14 layers": ours("internal_influence", layers="all"),
        "voxplain, conductance of all 14 layers": ours("layer_conductance", layers="all"),
    }
    rows = [[name, *_slope(work, 3 if quick else 15)] for name, work in cases.items()]
    return Table("overhead", HEADER, rows, ("CPU time, medians.",))


def _slope(work: Callable[[int], object], repeats: int) -> tuple[str, str]:
    timings = race({"few": lambda: work(FEW), "many": lambda: work(MANY)}, repeats)
    few, many = timings["few"].cpu_seconds, timings["many"].cpu_seconds
    each = (many - few) / (MANY - FEW)
    return f"{each * 1e3:.2f} ms", f"{max(0.0, few - FEW * each) * 1e3:.1f} ms"
