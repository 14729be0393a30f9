"""How the score of a target changes along directions that were found without concepts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.concepts.activation_sample import ActivationSample, sample_activations
from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.directions.sensitivity import (
    FEWEST_RANDOM,
    SensitivitiesRecord,
    SensitivityRecord,
    adjusted,
)
from voxplain.concepts.directions.sensitivity_cases import evidence
from voxplain.concepts.directions.significance import compare_directions
from voxplain.concepts.places import RegionOfInterest, image_foreground
from voxplain.engine.cohort import Cohort
from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError, TargetError
from voxplain.models.model import Model
from voxplain.targets import Target
from voxplain.targets.parse import parse_target


def direction_sensitivity(
    model: Model | nn.Module,
    cohort: Cohort,
    held_out: Cohort,
    directions: Directions,
    target: int | str | Mapping[str, object] | Target,
    *,
    random_directions: int = 999,
    per_case: int = 1024,
    region: RegionOfInterest = image_foreground,
    seed: int = 0,
) -> SensitivitiesRecord:
    """Directional derivatives of a score along given directions, each with its test.

    For each held-out case the score changes by sum over cells of dS/dA . v as all cells move along
    a direction v of length 1. Share of cases with a positive change and mean change are compared
    with those along random directions: from the center of the directions to activations at random
    places of the selection cases. A direction that is active at none of these places has no
    score. The test is that of :func:`concept_sensitivity`; there is no classifier, so that
    ``accuracy`` is NaN.

    Args:
        model: A network with gradients, or a model.
        cohort: The selection cases, that directions were found on.
        held_out: The cases that are scored.
        directions: Of one layer.
        target: Anything that can be explained; it is bound on each image.
        random_directions: How many random directions each is compared with.
        per_case: Activations of each selection case that they are drawn from.
        region: The voxels that count.
        seed: Of the draws.

    Raises:
        ConfigError: If there are too few random directions.
        ModelError: If the network has no gradients, or the layer does not exist.
        TargetError: If no held-out case has a score.
    """
    if random_directions < FEWEST_RANDOM:
        raise ConfigError(
            f"{random_directions} random directions cannot show p <= 0.05; take {FEWEST_RANDOM} "
            "at least"
        )
    contexts, bound = CaseContexts(model, seed), parse_target(target)
    layer = directions.layer
    (sample,) = sample_activations(
        contexts, cohort, (layer,), per_case=per_case, region=region, seed=seed
    ).values()
    seen = evidence(contexts, held_out, (), (layer,), bound, {layer: {}}, region)
    if not seen.cases:
        first = next(iter(seen.without_score.items()))
        raise TargetError(f"no held-out case has a score; case {first[0]!r}: {first[1]}")
    gradients = torch.stack([case.gradients[layer] for case in seen.cases])
    random = _random(sample, directions, random_directions, seed)
    is_active = (directions.encode(sample.values.T) != 0).any(dim=1).tolist()
    rows = [
        _row(directions, number, gradients, random, is_active[number])
        for number in range(len(directions))
    ]
    return SensitivitiesRecord(
        target=str(bound),
        rows=tuple(adjusted(rows)),
        random_directions=random_directions,
        selection=cohort.ids,
        held_out=held_out.ids,
        without_score=seen.without_score,
    )


def _random(sample: ActivationSample, directions: Directions, count: int, seed: int) -> Tensor:
    """Directions from the center to activations at random places, ``(count, K)``."""
    source = generator(seed, "random directions", directions.layer)
    picks = torch.randint(len(sample.values), (count,), generator=source)
    return functional.normalize(sample.values[picks] - directions.center.to(sample.values), dim=1)


def _row(
    directions: Directions, number: int, gradients: Tensor, random: Tensor, is_active: bool
) -> SensitivityRecord:
    reason, own = "", directions.vectors[number : number + 1].to(random)
    if not is_active:
        reason, own = "it is active in no selection case", torch.zeros_like(own)
    elif not bool(gradients.any()):
        reason = "no gradient of the score reaches the layer"
    tested, nan = compare_directions(gradients, torch.cat([own, random])), float("nan")
    return SensitivityRecord(
        concept=directions.names[number],
        layer=directions.layer,
        cases=len(gradients),
        share_positive=tested.share_positive,
        mean=tested.mean,
        random_share=tested.random_share,
        random_mean=tested.random_mean,
        p_share=tested.p_share,
        p_mean=tested.p_mean,
        q_share=nan,
        q_mean=nan,
        accuracy=nan,
        accuracy_interval=None,
        reason=reason,
    )
