"""Sparse directions of a layer over the cases of a cohort, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.concepts.activation_sample import ActivationSample, sample_activations
from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.directions.autoencoder import AutoencoderSettings, train_autoencoder
from voxplain.concepts.directions.direction_records import FoundDirectionRecord
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.finding import Finding
from voxplain.concepts.held_out import parted
from voxplain.concepts.places import RegionOfInterest, image_foreground
from voxplain.concepts.stability import matched_cosines
from voxplain.engine.cohort import Cohort
from voxplain.engine.interventions import UnitSet
from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError, InputError
from voxplain.models.model import Model

_SHOWN = 5


class SparseDirectionRecord(Finding):
    """One sparse direction.

    Attributes:
        name: Its number, unless a person has named it.
        frequency: Share of the vectors of the selection cases in which it is active.
        energy: Its share of the sum of squares of all readings there.
        stability: Mean cosine with the direction that it is matched with from other seeds; NaN
            for one seed or a dead direction.
        main_channel: The channel with the largest weight.
        purity: Square of that weight, 1 for a single unit.
        top_cases: Ids of the cases in which it is strongest on average.
    """

    name: str
    frequency: float
    energy: float
    stability: float
    main_channel: int
    purity: float
    top_cases: tuple[str, ...]


class SparseRecord(Finding):
    """Sparse directions of a layer, and how far to trust them.

    Attributes:
        layer: Path of the layer.
        active: How many directions a vector is made of, at the most.
        explained: Share of the variance of held-out activations.
        explained_on_selection: The same of the activations that they were found on.
        explained_by_axes: Of held-out variance by as many principal axes as directions are active,
            which are the same for all vectors.
        mean_active: How many directions a held-out vector is made of, on average.
        dead: Numbers of directions that are never active on the selection cases.
        stability: Mean over directions that are not dead of the matched cosine over seeds.
        random_cosine: The same with random vectors of the data instead of other directions.
        seeds: How many autoencoders were trained.
        directions: One by one.
        selection: Ids of the cases that they were found on.
        held_out: Ids of the cases that they were scored on.
        remarks: Sentences for the reader.
        meanings: What each stands for, where that was asked.
    """

    layer: str
    active: int
    explained: float
    explained_on_selection: float
    explained_by_axes: float
    mean_active: float
    dead: tuple[int, ...]
    stability: float
    random_cosine: float
    seeds: int
    directions: tuple[SparseDirectionRecord, ...]
    selection: tuple[str, ...]
    held_out: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    meanings: tuple[FoundDirectionRecord, ...] = ()


@dataclass(frozen=True, eq=False)
class SparseDirections:
    """Sparse directions of a layer.

    Attributes:
        record: What they explain, how stable they are, one by one.
        directions: Read, saved and intervened on like units.
    """

    record: SparseRecord
    directions: Directions

    def units(self, direction: int) -> UnitSet:
        """A direction as a unit that can be intervened on."""
        return self.directions.units(direction)


def sparse_directions(
    model: Model | nn.Module,
    cohort: Cohort,
    layer: str | None = None,
    *,
    directions: int | None = None,
    active: int = 8,
    seeds: int = 3,
    steps: int = 2000,
    held_out: float | Cohort = 0.25,
    per_case: int = 4096,
    region: RegionOfInterest = image_foreground,
    seed: int = 0,
) -> SparseDirections:
    """Directions of which every activation vector of a layer is a sum of few.

    A top-k autoencoder is trained on the selection cases for each seed; the one that explains
    most of them is returned, and the others say how stable it is. Where single units mix concepts,
    directions may hold them apart; whether they do, dissecting them shows.

    Args:
        model: A network, or a model.
        cohort: The cases, split by patient.
        layer: Path of the layer; None is the last feature layer.
        directions: How many; twice the number of channels if None.
        active: How many of them a vector is made of, at the most.
        seeds: How many autoencoders.
        steps: Of training each.
        held_out: Share of the patients that are held out, or the cases; then all
            of the cohort is selected on.
        per_case: Cells of each case.
        region: The voxels that count.
        seed: Of everything drawn.

    Raises:
        ConfigError: If there are fewer directions than active ones, or no seed.
        InputError: If the layer has the same activation everywhere, or there are fewer than two
            patients.
    """
    selection, scored = parted(cohort, held_out, seed, "a set of directions")
    layers = () if layer is None else (layer,)
    contexts = CaseContexts(model, seed)

    def sampled(cases: Cohort) -> ActivationSample:
        found = sample_activations(
            contexts, cases, layers, per_case=per_case, region=region, seed=seed
        )
        return next(iter(found.values()))

    sample = sampled(selection)
    count = 2 * sample.values.shape[1] if directions is None else directions
    if not 1 <= active <= count or seeds < 1 or steps < 1:
        raise ConfigError(
            f"{active} of {count} directions cannot be active with {seeds} seeds and {steps} "
            "steps; each of these is at least 1, and no more are active than there are"
        )
    if not bool((sample.values != sample.values[0]).any()):
        raise InputError(f"layer {sample.layer!r} has the same activation in all of these cases")
    settings = AutoencoderSettings(count, active, steps)
    found = [
        train_autoencoder(sample.values, settings, (seed, "sparse", number))
        for number in range(seeds)
    ]
    found = [replace(each, layer=sample.layer) for each in found]
    found.sort(key=lambda each: -explained_share(each, sample.values))
    record = _record(sample, sampled(scored), found, seed)
    return SparseDirections(record, found[0])


def _record(
    sample: ActivationSample,
    scored: ActivationSample,
    found: Sequence[Directions],
    seed: int,
) -> SparseRecord:
    first = found[0]
    code = first.encode(sample.values.T)
    frequency = (code > 0).float().mean(dim=1)
    alive = frequency > 0
    cosines = [matched_cosines(first.vectors, other.vectors) for other in found[1:]]
    nan = float("nan")
    stability = torch.stack(cosines).mean(0) if cosines else torch.full_like(frequency, nan)
    stability = stability.masked_fill(~alive, nan)
    energy = code.square().sum(dim=1)
    energy = energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
    return SparseRecord(
        layer=sample.layer,
        active=first.active,
        explained=explained_share(first, scored.values),
        explained_on_selection=explained_share(first, sample.values),
        explained_by_axes=_by_axes(sample.values, scored.values, first.active),
        mean_active=float((first.encode(scored.values.T) > 0).float().sum(dim=0).mean()),
        dead=tuple((~alive).nonzero()[:, 0].tolist()),
        stability=float(stability.nanmean()),
        random_cosine=_by_chance(sample.values, first, alive, seed),
        seeds=len(found),
        directions=tuple(
            _direction(first, sample, code, row, frequency, energy, stability)
            for row in range(len(first))
        ),
        selection=sample.cases,
        held_out=scored.cases,
        remarks=() if len(found) > 1 else ("one seed says nothing about stability",),
    )


def explained_share(directions: Directions, values: Tensor) -> float:
    """Share of the variance of vectors ``(N, K)`` that is left after encoding and decoding."""
    left = values.T - directions.decode(directions.encode(values.T))
    total = (values - values.mean(dim=0)).square().sum(dtype=torch.float64)
    return float(1 - left.square().sum(dtype=torch.float64) / total)


def _by_axes(values: Tensor, scored: Tensor, count: int) -> float:
    """Share of the variance of held-out vectors along the first principal axes."""
    mean = values.mean(dim=0)
    centered = (values - mean).double()
    axes = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :count]
    rest = (scored - mean).double()
    rest = rest - rest @ axes @ axes.T
    total = (scored - scored.mean(dim=0)).double().square().sum()
    return float(1 - rest.square().sum() / total)


def _by_chance(values: Tensor, first: Directions, alive: Tensor, seed: int) -> float:
    """Mean matched cosine with as many random vectors of the data."""
    source = generator(seed, "chance")
    picks = torch.randint(len(values), (len(first),), generator=source)
    drawn = functional.normalize(values[picks] - first.center, dim=1)
    return float(matched_cosines(first.vectors, drawn)[alive].mean())


def _direction(
    directions: Directions,
    sample: ActivationSample,
    code: Tensor,
    row: int,
    frequency: Tensor,
    energy: Tensor,
    stability: Tensor,
) -> SparseDirectionRecord:
    vector = directions.vectors[row]
    return SparseDirectionRecord(
        name=directions.names[row],
        frequency=float(frequency[row]),
        energy=float(energy[row]),
        stability=float(stability[row]),
        main_channel=int(vector.abs().argmax()),
        purity=float(vector.square().max()),
        top_cases=sample.top_cases(code[row], _SHOWN),
    )
