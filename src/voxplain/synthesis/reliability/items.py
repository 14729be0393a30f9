"""The seven items of a reliability panel, each measured and judged against a stated threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.taps import Tap
from voxplain.models.model import Model
from voxplain.records.synthesis import ReliabilityItem
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import StartLikeness
from voxplain.synthesis.reading import Reader
from voxplain.synthesis.reliability.exemplars import CohortAnswers, Vectors, vector_at
from voxplain.synthesis.result import Synthesis

_LIKE_EXEMPLARS = 0.5
_SEEDS, _RANDOMIZED, _NEAR, _DETECTS = 0.5, 0.5, 0.25, 0.04

Verdicts = Literal["pass", "fail", "not measured"]


def reader_of(model: Model, images: Tensor, taps: Sequence[Tap]) -> Reader:
    """What reads images of this size."""
    return Reader(model, model.admit(images[:1]), taps)


def exemplars_item(answers: CohortAnswers, top: int) -> ReliabilityItem:
    """Whether there are cases that drive the unit."""
    ranked = answers.ranked
    spread = ranked[0].peak > ranked[-1].peak
    return _item(
        "exemplars",
        "pass" if spread else "fail",
        f"peaks of {len(ranked)} cases from {ranked[-1].peak:.3g} to {ranked[0].peak:.3g}",
        "the unit answers to some cases more than to others",
        {"top": [answer.peak for answer in ranked[:top]]},
    )


def strength_item(synthesis: Synthesis, answers: CohortAnswers) -> ReliabilityItem:
    """How strongly the image drives the unit, against the cases."""
    peaks = [answer.peak for answer in answers.answers]
    largest, own = max(peaks), max(synthesis.peaks)
    multiple = own / largest if largest > 0 else math.nan
    share = sum(peak < own for peak in peaks) / len(peaks)
    times = f"{multiple:.2f} times" if largest > 0 else f"{own:.3g} beside"
    return _item(
        "strength",
        "pass" if own >= largest else "fail",
        f"{times} the largest peak over cases, above {100 * share:.0f} % of them",
        "at least the largest peak over cases",
        {"peak": own, "largest": largest, "multiple": multiple, "percentile": 100 * share},
    )


def likeness_item(
    model: Model,
    synthesis: Synthesis,
    answers: CohortAnswers,
    layers: Sequence[Tap],
    top: int,
) -> ReliabilityItem:
    """Whether layers process the image as they process exemplars."""
    threshold = (
        f"median over layers at least {_LIKE_EXEMPLARS} on a scale from random places (0) to other "
        "exemplars (1)"
    )
    best = answers.ranked[:top]
    if len(best) < 2 or len(answers.answers) < 4 or not layers:
        return _item("likeness", "not measured", "needs four cases and layers", threshold)
    own = _own_vectors(model, synthesis, layers)
    scale = {
        tap.path: _on_scale(
            own[tap],
            torch.stack([answer.at_peak[tap] for answer in best]),
            torch.stack([answer.at_random[tap] for answer in answers.answers]),
        )
        for tap in layers
    }
    known = [value for value in scale.values() if math.isfinite(value)]
    if not known:
        words = "exemplars are no more alike than random places in any layer"
        return _item("likeness", "not measured", words, threshold)
    median = float(torch.tensor(known, dtype=torch.float64).median())
    return _item(
        "likeness",
        "pass" if median >= _LIKE_EXEMPLARS else "fail",
        f"{median:.2f} of the way from random places to exemplars, median of {len(known)} layers",
        threshold,
        {"median": median, "layers": scale},
    )


def _on_scale(own: Tensor, exemplars: Tensor, random: Tensor) -> float:
    """Mean cosine with exemplars, 0 being that of random places and 1 that of other exemplars."""
    center = random.mean(dim=0)
    directions = torch.nn.functional.normalize(exemplars - center, dim=1)
    mine = torch.nn.functional.normalize(own - center, dim=0)
    others = torch.nn.functional.normalize(random - center, dim=1)
    count = len(directions)
    among = (directions @ directions.T).sum() - (directions * directions).sum()
    to_each_other = float(among) / (count * (count - 1))
    at_random = float((others @ directions.T).mean())
    span = to_each_other - at_random
    return (float((directions @ mine).mean()) - at_random) / span if span > 1e-6 else math.nan


def _own_vectors(model: Model, synthesis: Synthesis, layers: Sequence[Tap]) -> Vectors:
    objective = synthesis.objective
    taps = tuple(dict.fromkeys((*objective.taps, *layers)))
    image = model.admit(synthesis.image[None])
    with torch.no_grad(), model.at_rest(), model.precise():
        reader = reader_of(model, image, taps)
        reading = reader(image)
    found = objective.map(reading)[0]
    voxel = _peak_voxel(objective, reader.layers, found)
    return {tap: vector_at(reader.layers, tap, reading.values[tap][0], voxel) for tap in layers}


def _peak_voxel(
    objective: Objective, layers: NetworkLayers, found: Tensor
) -> tuple[float, ...] | None:
    if found.numel() < 2:
        return None
    cell = [int(i) for i in torch.unravel_index(found.flatten().argmax(), found.shape)]
    if not objective.taps:
        axes = zip(cell, found.shape, layers.shape, strict=True)
        return tuple((at + 0.5) * size / cells - 0.5 for at, cells, size in axes)
    geometry = layers.placed_geometry(objective.taps[0])
    places = zip(cell, geometry.start, geometry.stride, strict=True)
    return tuple(start + step * at for at, start, step in places)


def seeds_item(synthesis: Synthesis, by_seed: dict[int, Synthesis]) -> ReliabilityItem:
    """Whether other seeds drive the unit as strongly, and how much they differ."""
    threshold = f"each of three seeds gains at least {_SEEDS} of the largest gain"
    every = [synthesis, *by_seed.values()]
    if len(every) < 3:
        return _item("seeds", "not measured", f"{len(every)} seeds", threshold)
    gains = [max(each.scores) - each.start_scores[0] for each in every]
    flat = torch.stack([each.image.flatten().double() for each in every])
    correlation = torch.corrcoef(flat)
    pairs = torch.triu(torch.ones_like(correlation), 1) > 0
    diversity = 1 - float(correlation[pairs].nanmean())
    share = min(gains) / max(gains) if max(gains) > 0 else math.nan
    return _item(
        "seeds",
        "pass" if share >= _SEEDS else "fail",
        f"the weakest of {len(every)} seeds gains {share:.2f} of the strongest; the images differ "
        f"by {diversity:.2f} (1 - correlation)",
        threshold,
        {"gains": gains, "diversity": diversity},
    )


def random_item(model: Model, synthesis: Synthesis, random: Synthesis | None) -> ReliabilityItem:
    """Whether a network with random weights gives the same."""
    threshold = (
        "what drives a network with random weights gains at most "
        f"{_RANDOMIZED} of it in the trained one"
    )
    if random is None:
        words = "nothing can be driven in a network with random weights"
        return _item("random network", "not measured", words, threshold)
    image = model.admit(random.image[None])
    with torch.no_grad(), model.at_rest(), model.precise():
        reading = reader_of(model, image, synthesis.objective.taps)(image)
    start = synthesis.start_scores[0]
    gain = max(synthesis.scores) - start
    other = float(synthesis.objective.value(reading)) - start
    share = other / gain if gain > 0 else math.nan
    return _item(
        "random network",
        "pass" if share <= _RANDOMIZED else "fail",
        f"its picture gains {share:.2f} of the gain in the trained network",
        threshold,
        {"gain": gain, "gain of random": other, "share": share},
    )


def nearness_item(model: Model, synthesis: Synthesis) -> ReliabilityItem:
    """How near the image stays to the one that it started from."""
    threshold = f"a root mean square change of at most {_NEAR} intensity ranges, and a gain"
    if synthesis.start is None:
        words = "the image does not start from a patient"
        return _item("nearness", "not measured", words, threshold)
    start, image = synthesis.start, synthesis.image
    spans = synthesis.statistics.range.to(image).view(-1, *(1,) * (image.ndim - 1))
    changed = float(((image - start) / spans).square().mean().sqrt())
    gain = max(synthesis.scores) - synthesis.start_scores[0]
    along = synthesis.history.mean(dim=1)
    values: dict[str, object] = {
        "change": changed,
        "gain": gain,
        "layer distance": _distance(model, synthesis),
        "score along the way": along[:: max(1, len(along) // 16)].tolist(),
    }
    return _item(
        "nearness",
        "pass" if changed <= _NEAR and gain > 0 else "fail",
        f"changed by {changed:.3f} intensity ranges, score by {gain:+.3g}",
        threshold,
        values,
    )


def _distance(model: Model, synthesis: Synthesis) -> float | None:
    """||A(x) - A(x0)|| / ||A(x0)|| in the layer of the unit, or the one the method names."""
    taps = synthesis.objective.taps
    layer = synthesis.findings.get("layer") or (taps[0].path if taps else None)
    if layer is None or synthesis.start is None:
        return None
    both = model.admit(torch.stack([synthesis.image, synthesis.start]))
    with torch.no_grad(), model.at_rest(), model.precise():
        reading = reader_of(model, both, (Tap(layer),))(both)
    first = reading.rows(slice(0, 1))
    beside = type(first)(first.layers, first.values, first.output, reading.rows(slice(1, 2)))
    return -float(StartLikeness(layer=layer).value(beside))


def dissection_item(dissection: tuple[float, float, float] | None) -> ReliabilityItem:
    """The held-out score of the unit, where it was dissected."""
    threshold = f"lower end of the interval of the held-out score above {_DETECTS}"
    if dissection is None:
        return _item("dissection", "not measured", "no held-out score is given", threshold)
    score, low, high = dissection
    return _item(
        "dissection",
        "pass" if low > _DETECTS else "fail",
        f"held-out score {score:.3f} ({low:.3f} to {high:.3f})",
        threshold,
        {"score": score, "interval": [low, high]},
    )


def _item(
    item: str,
    verdict: Verdicts,
    in_words: str,
    threshold: str,
    values: dict[str, object] | None = None,
) -> ReliabilityItem:
    return ReliabilityItem(
        item=item, verdict=verdict, in_words=in_words, threshold=threshold, values=values or {}
    )
