"""What a metric is like, for those who choose among them: found out on two reference images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from voxplain.attribution.describe.card import PICTURE, VOLUME, reference_context
from voxplain.attribution.describe.parameters import Parameter, parameters
from voxplain.metrics.context import Query
from voxplain.metrics.metric import Metric

FAMILIES = {
    "faithfulness": "Does the map say what the network's score depends on?",
    "robustness": "Does the map stay what it is when the image changes a little?",
    "localization": "Does the map point at the reference mask, or at the images of its class?",
    "segmentation": "What becomes of the predicted object, and where does the map lie around it?",
    "complexity": "Is the map simple enough to be read?",
    "randomization": "Does the map change when the network forgets what it learned?",
    "agreement": "Do methods, seeds and networks tell the same?",
    "calibration": "Is the network right as often as it says?",
}
"""The chapters in the order in which they are read."""
_USUAL = {
    "bins": "of the histogram",
    "changes": "what is done to the image",
    "copies": "noisy copies over which a map is averaged",
    "draws": "number of random draws",
    "eps": "of the largest value",
    "levels": "steps from nothing to everything",
    "measure": "how two maps are compared",
    "order": "which stages lose their training first; independent: one at a time",
    "perturbation": "what is taken from the image",
    "seeds": "repeats with other weights",
    "share": "of the magnitude, of the voxels or of the regions",
    "shares": "of the voxels or regions",
    "similarity": "how two maps are compared",
    "steps": "stages are joined to at most so many",
}
"""What parameters of these names mean wherever nothing else is said of them."""
BETTER = {"up": "higher", "down": "lower", "none": "neither"}


@dataclass(frozen=True)
class MetricCard:
    """A metric with its defaults.

    Attributes:
        per_map: Forwards for each map, on the picture and on the volume.
        shared: Forwards that serve all maps of an image.
        again: How often the methods of the maps explain again, on the picture and on the volume.
    """

    per_map: tuple[int, int]
    shared: tuple[int, int]
    again: tuple[int, int]

    @property
    def cost(self) -> str:
        """Forwards and explanations, in words."""
        parts = [
            f"{_either(self.per_map)} per map" * any(self.per_map),
            f"{_either(self.shared)} for all maps" * any(self.shared),
            f"{_either(self.again)} explanation{'s' * (max(self.again) > 1)}" * any(self.again),
        ]
        return ", ".join(filter(None, parts)) or "none"


def metric_card(kind: type[Metric]) -> MetricCard:
    """The portrait of a metric."""
    metric = kind.model_validate({"name": kind.title()})
    per_map, shared, again = [], [], []
    for shape in (PICTURE, VOLUME):
        context = reference_context(shape)
        queries = metric.queries(context)
        counts = {query: query.expected(context) for query in queries}
        per_map.append(_sum(counts, [p for p in queries if p.per_map and not p.explains]))
        shared.append(_sum(counts, [p for p in queries if not (p.per_map or p.explains)]))
        again.append(_sum(counts, [p for p in queries if p.explains]))
    return MetricCard(*((counts[0], counts[1]) for counts in (per_map, shared, again)))


def parameters_of(kind: type[Metric]) -> list[Parameter]:
    """The parameters of a metric in words."""
    return [
        each
        if kind.model_fields[each.name].description or each.name not in _USUAL
        else replace(each, meaning=_USUAL[each.name])
        for each in parameters(kind)
    ]


def range_in_words(kind: type[Metric]) -> str:
    """``0 to 1``, ``from 0``, ``any``; with the unit."""
    low, high = kind.range
    if low is None:
        words = "any" if high is None else f"up to {high:g}"
    else:
        words = f"from {low:g}" if high is None else f"{low:g} to {high:g}"
    return " ".join(filter(None, (words, kind.unit)))


def in_order(kinds: Sequence[type[Metric]]) -> dict[str, list[type[Metric]]]:
    """Metrics by chapter; those of plug-ins come last."""
    names = [*FAMILIES, *sorted({kind.family for kind in kinds} - set(FAMILIES))]
    chapters = {name: [kind for kind in kinds if kind.family == name] for name in names}
    return {name: members for name, members in chapters.items() if members}


def _sum(counts: dict[Query, int], queries: Sequence[Query]) -> int:
    return sum(counts[query] for query in queries)


def _either(counts: tuple[int, int]) -> str:
    return " / ".join(dict.fromkeys(f"{count:,}" for count in counts))
