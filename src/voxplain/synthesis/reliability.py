"""The reliability panel beside a synthesized image: when it may be believed.

Feature visualizations can be made arbitrary, and networks process them unlike real images (Geirhos
et al., 2024). So seven things are measured, each with a verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.randomization import random_network
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, VoxplainError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.records.synthesis import ReliabilityItem, ReliabilityRecord
from voxplain.synthesis.exemplars import CohortAnswers, ExemplarMap, Vectors, answers_of, vector_at
from voxplain.synthesis.objectives import Objective, StartLikeness
from voxplain.synthesis.reading import Reader
from voxplain.synthesis.result import Synthesis
from voxplain.synthesis.synthesize import synthesize

NOT_INTERPRETABLE = "not interpretable by synthesis"
"""The caption of a unit whose picture is processed unlike its exemplars, and is what a random
network gives as well."""

_LIKE_EXEMPLARS = 0.5
_SEEDS, _RANDOMIZED, _NEAR, _DETECTS = 0.5, 0.5, 0.25, 0.04
_LAYERS = 8
"""Layers that are compared, at most."""

Verdicts = Literal["pass", "fail", "not measured"]


@dataclass(frozen=True, eq=False)
class ReliabilityPanel:
    """Verdicts on a synthesized image, with the cases that drive its unit most and least.

    Attributes:
        record: Items, thresholds and values, as they are written.
        exemplars: Cases with the largest peaks and their maps, strongest first.
        bottom_exemplars: Cases with the smallest peaks, weakest first.
        by_seed: The same synthesis from other seeds, by seed.
        on_random_network: The same synthesis on a network with random weights; None where nothing
            drives the unit there.
    """

    record: ReliabilityRecord
    exemplars: tuple[ExemplarMap, ...]
    bottom_exemplars: tuple[ExemplarMap, ...]
    by_seed: dict[int, Synthesis]
    on_random_network: Synthesis | None


def reliability_panel(
    model: Model,
    synthesis: Synthesis,
    cohort: Cohort,
    *,
    image: Image | None = None,
    dissection: tuple[float, float, float] | None = None,
    top: int = 5,
    seeds: int = 3,
    memory: int | None = None,
) -> ReliabilityPanel:
    """Measures how far a synthesized image may be believed.

    Args:
        model: The network that it was synthesized for; left as it was.
        synthesis: Of one unit, by any method but inversions, grids and atlases.
        cohort: Cases of the user, read one after another.
        image: The patient's image that the synthesis started from, for methods that do.
        dissection: Held-out score of the unit with the ends of its interval.
        top: Exemplars of either kind.
        seeds: Of the same synthesis, the present one included; at least 3 for a verdict.
        memory: Bytes for saved activations.

    Raises:
        ConfigError: If the cohort is empty, the method makes no single images of a unit, or the
            image that it started from is missing.
    """
    _check(synthesis, cohort, image)
    objective = synthesis.objective
    model = Model.of(model).for_task(synthesis.seed)
    layers = compared_layers(model, synthesis)
    answers = answers_of(model, cohort, objective, layers, synthesis.seed)
    again = _Again(synthesis, image, memory)
    by_seed = {synthesis.seed + n: again.on(model, synthesis.seed + n) for n in range(1, seeds)}
    random = again.on_random(model, cohort)
    items = [
        _exemplars_item(answers, top),
        _strength_item(synthesis, answers),
        _likeness_item(model, synthesis, answers, layers, top),
        _seeds_item(synthesis, by_seed),
        _random_item(model, synthesis, random),
        _nearness_item(model, synthesis),
        _dissection_item(dissection),
    ]
    record = ReliabilityRecord(
        unit=synthesis.unit,
        items=items,
        caption=caption_of(items),
        exemplars=[{"case": each.case, "peak": each.peak} for each in answers.ranked[:top]],
        bottom_exemplars=[
            {"case": each.case, "peak": each.peak} for each in answers.ranked[::-1][:top]
        ],
        settings={
            "cases": len(cohort),
            "top": top,
            "seeds": seeds,
            "layers": [*map(_path, layers)],
        },
    )
    return ReliabilityPanel(
        record=record,
        exemplars=tuple(answers.exemplars(top)),
        bottom_exemplars=tuple(answers.bottom_exemplars(top)),
        by_seed=by_seed,
        on_random_network=random,
    )


def caption_of(items: Sequence[ReliabilityItem]) -> str:
    """The caption below the picture: a warning where items 3 and 5 fail, else empty."""
    failed = {item.item for item in items if item.verdict == "fail"}
    return NOT_INTERPRETABLE if {"likeness", "random network"} <= failed else ""


def compared_layers(model: Model, synthesis: Synthesis) -> tuple[Tap, ...]:
    """The layers that are compared: leaves with cells, at most eight of them, evenly spread."""
    with model.at_rest():
        reader = _reader(model, synthesis.images[:1], ())
        paths = reader.layers.placed_leaves
    if len(paths) <= _LAYERS:
        return tuple(map(Tap, paths))
    chosen = [round(n * (len(paths) - 1) / (_LAYERS - 1)) for n in range(_LAYERS)]
    return tuple(Tap(paths[number]) for number in chosen)


def _path(tap: Tap) -> str:
    return tap.path


def _check(synthesis: Synthesis, cohort: Cohort, image: Image | None) -> None:
    name = synthesis.method.name
    if synthesis.cells or name == "inverted_representation":
        raise ConfigError(f"a reliability panel is about pictures of one unit, not about {name}")
    if not len(cohort):
        raise ConfigError("a reliability panel needs cases, and the cohort is empty")
    if synthesis.method.from_image and image is None:
        raise ConfigError(f"{name} started from an image; give it to the panel as well")


@dataclass(frozen=True, eq=False)
class _Again:
    """The same synthesis from another seed, or on another network."""

    synthesis: Synthesis
    image: Image | None
    memory: int | None

    def on(self, model: Model, seed: int) -> Synthesis:
        found = synthesize(
            model,
            self.synthesis.statistics if self.image is None else self.image,
            self.synthesis.method,
            self.synthesis.objective,
            statistics=self.synthesis.statistics,
            seed=seed,
            memory=self.memory,
        )
        return next(iter(found.values()))

    def on_random(self, model: Model, cohort: Cohort) -> Synthesis | None:
        """On a network with random weights; None where nothing can be driven there."""
        images = [
            Context.open(model, case.image).example for case in itertools.islice(iter(cohort), 8)
        ]
        same = [image for image in images if image.shape == images[0].shape]
        try:
            drawn = random_network(model, torch.cat(same), self.synthesis.seed)
            return self.on(drawn, self.synthesis.seed)
        except VoxplainError:
            return None


def _reader(model: Model, images: Tensor, taps: Sequence[Tap]) -> Reader:
    return Reader(model, model.admit(images[:1]), taps)


def _exemplars_item(answers: CohortAnswers, top: int) -> ReliabilityItem:
    ranked = answers.ranked
    spread = ranked[0].peak > ranked[-1].peak
    return _item(
        "exemplars",
        "pass" if spread else "fail",
        f"peaks of {len(ranked)} cases from {ranked[-1].peak:.3g} to {ranked[0].peak:.3g}",
        "the unit answers to some cases more than to others",
        {"top": [answer.peak for answer in ranked[:top]]},
    )


def _strength_item(synthesis: Synthesis, answers: CohortAnswers) -> ReliabilityItem:
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


def _likeness_item(
    model: Model,
    synthesis: Synthesis,
    answers: CohortAnswers,
    layers: Sequence[Tap],
    top: int,
) -> ReliabilityItem:
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
        reader = _reader(model, image, taps)
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


def _seeds_item(synthesis: Synthesis, by_seed: dict[int, Synthesis]) -> ReliabilityItem:
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


def _random_item(model: Model, synthesis: Synthesis, random: Synthesis | None) -> ReliabilityItem:
    threshold = (
        "what drives a network with random weights gains at most "
        f"{_RANDOMIZED} of it in the trained one"
    )
    if random is None:
        words = "nothing can be driven in a network with random weights"
        return _item("random network", "not measured", words, threshold)
    image = model.admit(random.image[None])
    with torch.no_grad(), model.at_rest(), model.precise():
        reading = _reader(model, image, synthesis.objective.taps)(image)
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


def _nearness_item(model: Model, synthesis: Synthesis) -> ReliabilityItem:
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
        reading = _reader(model, both, (Tap(layer),))(both)
    first = reading.rows(slice(0, 1))
    beside = type(first)(first.layers, first.values, first.output, reading.rows(slice(1, 2)))
    return -float(StartLikeness(layer=layer).value(beside))


def _dissection_item(dissection: tuple[float, float, float] | None) -> ReliabilityItem:
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
