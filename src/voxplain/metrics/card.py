"""Metric cards: what a metric measures and costs, as the command line and the docs show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from voxplain.attribution.describe.card import PICTURE, VOLUME, reference_context
from voxplain.attribution.describe.parameters import Parameter, parameters
from voxplain.metrics.metric import BaseMetric

FAMILIES = {
    "faithfulness": "Does the map say what the network's score depends on?",
    "robustness": "Does the map stay the same when the image changes a little?",
    "localization": "Does the map point at the reference mask, or at the images of its class?",
    "segmentation": "What happens to the predicted object, and where does the map lie around it?",
    "complexity": "Is the map simple enough to be read?",
    "randomization": "Does the map change when the weights of the network are randomized?",
    "agreement": "Do methods, seeds and networks agree?",
    "calibration": "Is the network right as often as its probabilities say?",
}
"""The chapters in reading order, each with the question that its metrics answer."""
_MEANINGS = {
    "bins": "of the histogram",
    "changes": "what is done to the image",
    "copies": "noisy copies over which a map is averaged",
    "draws": "number of random draws",
    "eps": "of the largest value",
    "levels": "steps from nothing to everything",
    "measure": "how two maps are compared",
    "order": "which stages are randomized first; independent: one stage at a time",
    "perturbation": "how the image is changed",
    "seeds": "repeats with other random weights",
    "share": "of the magnitude, of the voxels or of the regions",
    "shares": "of the voxels or regions",
    "similarity": "how two maps are compared",
    "steps": "stages are joined to at most so many steps",
}
"""Meanings of parameters by name, where a metric gives none of its own."""
BETTER = {"up": "higher", "down": "lower", "none": "neither"}


@dataclass(frozen=True)
class MetricCard:
    """What a metric with its defaults costs, on the 2-D and on the 3-D reference image.

    Attributes:
        per_map: Forwards for each map.
        shared: Forwards for all maps of an image together.
        again: How often the methods of the maps explain again.
    """

    per_map: tuple[int, int]
    shared: tuple[int, int]
    again: tuple[int, int]

    @property
    def cost(self) -> str:
        """Forwards and explanations, in words."""
        parts = [
            f"{_counts(self.per_map)} per map" * any(self.per_map),
            f"{_counts(self.shared)} for all maps" * any(self.shared),
            f"{_counts(self.again)} explanation{'s' * (max(self.again) > 1)}" * any(self.again),
        ]
        return ", ".join(filter(None, parts)) or "none"


def metric_card(kind: type[BaseMetric]) -> MetricCard:
    """What a metric class costs with its defaults."""
    metric = kind.model_validate({"name": kind.title()})
    flat, volume = (_costs(metric, shape) for shape in (PICTURE, VOLUME))
    return MetricCard(*zip(flat, volume, strict=True))


def _costs(metric: BaseMetric, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Forwards per map, forwards for all maps, and explanations, for an image of this shape."""
    context = reference_context(shape)
    costs = {query: query.cost(context) for query in metric.queries(context)}
    explanations = sum(cost for query, cost in costs.items() if query.explains)
    per_map = sum(cost for query, cost in costs.items() if query.per_map and not query.explains)
    return per_map, sum(costs.values()) - per_map - explanations, explanations


def parameters_of(kind: type[BaseMetric]) -> list[Parameter]:
    """The parameters of a metric class in words."""
    return [
        parameter
        if kind.model_fields[parameter.name].description or parameter.name not in _MEANINGS
        else replace(parameter, meaning=_MEANINGS[parameter.name])
        for parameter in parameters(kind)
    ]


def range_in_words(kind: type[BaseMetric]) -> str:
    """``0 to 1``, ``from 0``, ``any``; with the unit."""
    low, high = kind.range
    if low is None:
        words = "any" if high is None else f"up to {high:g}"
    else:
        words = f"from {low:g}" if high is None else f"{low:g} to {high:g}"
    return " ".join(filter(None, (words, kind.unit)))


def in_order(kinds: Sequence[type[BaseMetric]]) -> dict[str, list[type[BaseMetric]]]:
    """Metric classes by chapter; chapters of plug-ins come last."""
    names = [*FAMILIES, *sorted({kind.family for kind in kinds} - set(FAMILIES))]
    chapters = {name: [kind for kind in kinds if kind.family == name] for name in names}
    return {name: members for name, members in chapters.items() if members}


def _counts(counts: tuple[int, int]) -> str:
    """Both counts, or one where they are the same."""
    return " / ".join(dict.fromkeys(f"{count:,}" for count in counts))
