"""Randomized networks side by side, which share what lies below, against one after the other."""

from __future__ import annotations

from typing import Any

import voxplain as vx
from benchmarks.harness import difference, race
from benchmarks.networks import PIXELWISE, classifier, segmenter
from benchmarks.page import Table, seconds, times
from voxplain.engine.acceleration import forward_trace as course
from voxplain.metrics.context import MetricContext, metric_context
from voxplain.metrics.randomization import grouped, stages
from voxplain.metrics.randomization.networks import Kinship, randomized
from voxplain.metrics.re_explain import explain_again, explain_networks

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
        asked = (
            ("residual classifier", _question(resnet, image, method, {"kind": "class_score"})),
            ("U-Net", _question(unet, volume, method, PIXELWISE)),
        )
        for name, question in asked:
            rows.append([title, name, *_compared(question)])
    note = (
        f"{size}^3; maps of the networks of one seed, at most 12, randomized from the output down, "
        "without the time to draw their weights. A step shares what lies below its first random "
        "layer. Gradients spare forwards alone, since what comes back differs in every network. "
        "Guided and other rules that treat the parts of a gradient otherwise than their sum share "
        "nothing."
    )
    return Table("cascade", HEADER, rows, (note,))


def _question(network: Any, image: Any, method: dict[str, Any], target: Any) -> MetricContext:
    model = vx.Model(network)
    if target["kind"] == "class_score":
        target = {**target, "label": 1}
    maps = {"map": vx.explain(model, image, method, target).popitem()[1][0]}
    return metric_context(model, image[0], target, maps=maps)


def _compared(question: MetricContext) -> list[str]:
    model, example = question.context.model, question.context.example
    ran = course(model, example)
    groups = grouped(stages(model, example, ran), 12)
    networks = list(randomized(model, groups, "top_down", 0, example))
    asked = [question.with_model(each.model) for each in networks]
    image, methods = question.item.image[None], question.methods

    def alone() -> list[Any]:
        return [explain_again(one, image, methods) for one in asked]

    def together() -> list[Any]:
        return explain_networks(asked, image, methods, Kinship(ran, networks, example))

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
