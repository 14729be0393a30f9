"""All layers of a 3-D U-Net: one call here, one call per layer and method elsewhere."""

from __future__ import annotations

from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Floor, cosine, difference, race
from benchmarks.networks import PIXELWISE, segmenter
from benchmarks.page import Table, row
from benchmarks.peers import Captum

HEADER = (
    "layers",
    "voxplain, one call",
    "captum, one by one",
    "captum / voxplain",
    "by CPU time",
    "voxplain / floor",
    "maps differ by",
)


def run(quick: bool = False) -> Table:
    """Conductance, internal influence, gradient x activation and integrated gradients."""
    size, steps, repeats = (16, 4, 1) if quick else (32, 20, 1)
    network, image, score = segmenter(size)
    captum = Captum(score, image).tuned(steps)
    floor = Floor(network, image, score.score)
    rows, remarks = [], []
    for title, layers in _selections(network).items():
        ours = _methods(layers, steps)
        timings = race(
            {
                "voxplain": lambda ours=ours: vx.explain(network, image, ours, PIXELWISE),
                "captum": lambda layers=layers: _one_by_one(captum, layers, steps),
                "floor": floor.of(steps + 1),
            },
            repeats,
            warm_up={"captum": lambda layers=layers: _one_by_one(captum, layers[:1], steps)},
        )
        found = vx.explain(network, image, ours, PIXELWISE)
        agreed, alike = _agreement(found, captum, layers, steps)
        rows.append(row(f"{title} ({len(layers)})", timings, f"{agreed:.0e}"))
        remarks.append(alike)
    note = (
        f"Layer conductance, internal influence, layer gradient x activation at each layer, and "
        f"integrated gradients: {steps} Gauss-Legendre steps on a {size}^3 volume, U-Net of widths "
        f"8, 16, 32. The floor is {steps + 1} forwards and backwards of the bare network in "
        f"batches of {floor.batch}; captum ran with internal_batch_size={captum.batch}, its "
        f"fastest here; {repeats} timed turn{'s' if repeats > 1 else ''} each. "
        f"Conductance is left out of the differences, as captum divides the path "
        f"differently (smallest cosine {min(remarks):.4f})."
    )
    return Table("all_layers", HEADER, rows, (note,))


def _selections(network: nn.Module) -> dict[str, list[str]]:
    modules = {path: part for path, part in network.named_modules() if path}
    leaves = [path for path, part in modules.items() if not list(part.children())]
    convolutions = [path for path in leaves if isinstance(modules[path], nn.Conv3d)]
    blocks = [path for path, _ in network.named_children() if not path.startswith("pool")]
    return {"every leaf": leaves, "every convolution": convolutions, "main blocks": blocks}


def _methods(layers: list[str], steps: int) -> list[dict[str, object]]:
    path = {"layers": layers, "steps": steps}
    return [
        {"name": "layer_conductance", **path},
        {"name": "internal_influence", **path},
        {"name": "layer_gradient_x_activation", "layers": layers},
        {"name": "integrated_gradients", "steps": steps},
    ]


def _one_by_one(captum: Captum, layers: list[str], steps: int) -> None:
    captum.integrated_gradients(steps)
    for layer in layers:
        captum.layer_conductance(layer, steps)
        captum.internal_influence(layer, steps)
        captum.layer_gradient_x_activation(layer)


def _agreement(
    found: dict[str, vx.Attribution], captum: Captum, layers: list[str], steps: int
) -> tuple[float, float]:
    """Largest relative difference of what is defined alike; smallest cosine of conductance."""
    pairs = [(found["integrated_gradients"].map, captum.integrated_gradients(steps))]
    conductance: list[tuple[Tensor, Tensor]] = []
    for layer in layers[:: max(1, len(layers) // 5)]:
        influence = found[f"internal_influence@{layer}"].map
        pairs.append((influence, captum.internal_influence(layer, steps)))
        product = found[f"layer_gradient_x_activation@{layer}"].map
        pairs.append((product, captum.layer_gradient_x_activation(layer)))
        flow = found[f"layer_conductance@{layer}"].map
        conductance.append((flow, captum.layer_conductance(layer, steps)))
    ours, theirs = zip(*conductance, strict=True)
    return max(difference(*pair) for pair in pairs), cosine(ours, theirs)
