"""Randomized networks explained together, which share modules, against one after the other."""

from __future__ import annotations

from typing import Any

import voxplain as vx
from benchmarks.harness import difference, race
from benchmarks.networks import PIXELWISE, classifier, segmenter
from benchmarks.page import Table, seconds, times
from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.context import Context
from voxplain.metrics import MetricContext
from voxplain.metrics.randomization import grouped, stages
from voxplain.metrics.randomization.randomized_networks import UnchangedModules, randomized
from voxplain.metrics.re_explain import explain_again, explain_networks
from voxplain.targets import parse_target

HEADER = (
    "method",
    "network",
    "one after the other",
    "side by side",
    "ratio",
    "by CPU time",
    "maps differ by",
)

METHODS: dict[str, dict[str, Any]] = {
    "integrated gradients, 16 steps": {"name": "integrated_gradients", "steps": 16},
    "SmoothGrad, 16 copies": {"name": "smoothgrad", "of": "saliency", "samples": 16},
    "occlusion, 64 boxes": {
        "name": "occlusion",
        "window": 0.25,
        "stride": 0.25,
        "incremental": "off",
    },
}


def run(quick: bool = False) -> Table:
    """Twelve steps of a cascade, for methods with and without gradients."""
    size = 16 if quick else 32
    resnet, image = classifier(3, size)
    unet, volume, _ = segmenter(size)
    rows = []
    for title, method in METHODS.items():
        contexts = (
            ("residual classifier", _context(resnet, image, method, {"kind": "class_score"})),
            ("U-Net", _context(unet, volume, method, PIXELWISE)),
        )
        for name, context in contexts:
            rows.append([title, name, *_compared(context)])
    note = (
        f"{size}^3; maps of the networks of one seed, at most 12, randomized from the output down, "
        "without the time to draw their weights. A step shares what lies below its first random "
        "layer. Gradients spare forwards alone, since what comes back differs in every network. "
        "Guided and other rules that treat the parts of a gradient otherwise than their sum share "
        "nothing."
    )
    return Table("cascade", HEADER, rows, (note,))


def _context(network: Any, image: Any, method: dict[str, Any], target: Any) -> MetricContext:
    model = vx.Model(network)
    if target["kind"] == "class_score":
        target = {**target, "label": 1}
    maps = {"map": vx.explain(model, image, method, target).popitem()[1][0]}
    context = Context.open(model, image)
    return MetricContext.open(context, context.bind(parse_target(target)), maps)


def _compared(context: MetricContext) -> list[str]:
    model, example = context.engine.model, context.engine.example
    traced = trace(model, example)
    groups = grouped(stages(model, example, traced), 12)
    networks = list(randomized(model, groups, "top_down", 0, example))
    contexts = [context.with_model(network.model) for network in networks]
    image, methods = context.input.image[None], context.methods

    def alone() -> list[Any]:
        return [explain_again(own, image, methods) for own in contexts]

    def together() -> list[Any]:
        shared = UnchangedModules(traced, networks, example)
        return explain_networks(contexts, image, methods, shared)

    apart = max(
        difference(found[name], expected[name])
        for found, expected in zip(together(), alone(), strict=True)
        for name in expected
        if bool(expected[name].any())
    )
    contestants = {"alone": alone, "together": together}
    idle = dict.fromkeys(contestants, lambda: None)  # both have just run
    timings = race(contestants, repeats=1, warm_up=idle)
    wall, cpu = timings["alone"].times(timings["together"])
    measured = [seconds(timings[name].seconds) for name in ("alone", "together")]
    return [*measured, times(wall), times(cpu), f"{apart:.0e}"]
