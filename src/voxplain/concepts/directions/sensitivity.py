"""How the score of a target changes along the directions of concepts, with a test (TCAV).

Paper: Kim et al., Interpretability beyond feature attribution: quantitative testing with concept
activation vectors, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.activation_vectors import ActivationVectors
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.directions.sensitivity_cases import (
    CaseEvidence,
    evidence,
    vectors_by_layer,
)
from voxplain.concepts.directions.significance import compare_directions
from voxplain.concepts.finding import Finding
from voxplain.concepts.held_out import parted
from voxplain.concepts.places import RegionOfInterest, image_foreground
from voxplain.engine.cohort import Cohort
from voxplain.errors import ConfigError, TargetError
from voxplain.models.model import Model
from voxplain.statistics import benjamini_hochberg, summarize
from voxplain.targets import Target
from voxplain.targets.parse import parse_target

FEWEST_RANDOM = 39
"""Random directions from which on a two-sided p value can be 0.05."""


class SensitivityRecord(Finding):
    """How a score changes along the direction of one concept in one layer.

    Attributes:
        concept: Its name; that of the direction, where it was found without concepts.
        layer: Path of the layer.
        cases: Held-out cases with a score.
        share_positive: Share of them whose score grows along the direction.
        mean: Mean directional derivative, in score per unit of activation, all cells moved.
        random_share: 2.5 % and 97.5 % quantiles of the share along the directions of random
            concepts.
        random_mean: The same of the mean.
        p_share: Two-sided p value of the share against random concepts.
        p_mean: The same of the mean.
        q_share: The p value adjusted over all concepts and layers (Benjamini-Hochberg).
        q_mean: The same of the mean.
        accuracy: Balanced accuracy of the classifier on held-out cases; 0.5 is chance.
        accuracy_interval: 95 % bootstrap interval of the mean over cases; None below 8 patients.
        reason: Why numbers are NaN.
    """

    concept: str
    layer: str
    cases: int
    share_positive: float
    mean: float
    random_share: tuple[float, float]
    random_mean: tuple[float, float]
    p_share: float
    p_mean: float
    q_share: float
    q_mean: float
    accuracy: float
    accuracy_interval: tuple[float, float] | None
    reason: str = ""


class SensitivitiesRecord(Finding):
    """How the score of a target changes along the directions of concepts.

    Attributes:
        target: In words.
        rows: One per concept and layer.
        random_directions: How many random concepts there are.
        selection: Ids of the cases that directions were found on.
        held_out: Ids of the cases that they were scored on.
        without_score: Why the target could not be bound, by the id of the case.
    """

    target: str
    rows: tuple[SensitivityRecord, ...]
    random_directions: int
    selection: tuple[str, ...]
    held_out: tuple[str, ...]
    without_score: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Sensitivities of a score to concepts.

    Attributes:
        record: The numbers.
        directions: By the path of the layer, the directions of the concepts that have one.
    """

    record: SensitivitiesRecord
    directions: Mapping[str, Directions]

    def of(self, concept: str, layer: str) -> SensitivityRecord:
        """The row of a concept and a layer.

        Raises:
            KeyError: If there is none.
        """
        for row in self.record.rows:
            if (row.concept, row.layer) == (concept, layer):
                return row
        raise KeyError((concept, layer))


def concept_sensitivity(
    model: Model | nn.Module,
    cohort: Cohort,
    concepts: Sequence[Concept],
    layers: Sequence[str],
    target: int | str | Mapping[str, object] | Target,
    *,
    random_directions: int = 200,
    held_out: float | Cohort = 0.5,
    cells_per_case: int = 16384,
    region: RegionOfInterest = image_foreground,
    ridge: float = 0.01,
    seed: int = 0,
) -> Sensitivities:
    """Directional derivatives of a score along concept activation vectors, each with its test.

    The vector w of a concept is the direction of the linear least-squares classifier of cells in
    the concept against the rest (of whole images, by their mean over cells, for a concept of the
    image or a layer without places), found on the selection cases. For each held-out case the
    score changes by sum over cells of dS/dA . w as all cells move along w; overlapping windows
    move together. Share of cases with a positive change and mean change are compared with those of
    random concepts of the same size and shape: masks moved around the grid of the layer, values of
    images dealt to other cases.

    Args:
        model: A network with gradients, or a model.
        cohort: The cases; half and half by default, split by patient.
        concepts: With distinct names.
        layers: Paths of layers.
        target: Anything that can be explained; it is bound on each image.
        random_directions: How many random concepts each concept is compared with.
        held_out: Share of the patients that are held out, or the cases; then all
            of the cohort is selected on.
        cells_per_case: Largest number of cells of a case in mean and covariance.
        region: The voxels that count.
        ridge: Share of the mean variance that is added to the covariance.
        seed: Of split and draws.

    Raises:
        ConfigError: If two concepts have the same name, or there are too few random directions.
        InputError: If there are fewer than two patients.
        ModelError: If the network has no gradients, or a layer does not exist.
        TargetError: If no held-out case has a score.
    """
    _check(concepts, random_directions)
    selection, scored = parted(cohort, held_out, seed, "a sensitivity")
    bound = parse_target(target)
    contexts = CaseContexts(model, seed)
    found = vectors_by_layer(
        contexts,
        selection,
        concepts,
        layers,
        random_directions,
        cells_per_case,
        region,
        ridge,
        seed,
    )
    seen = evidence(contexts, scored, concepts, tuple(found), bound, found, region)
    if not seen.cases:
        first = next(iter(seen.without_score.items()))
        raise TargetError(f"no held-out case has a score; case {first[0]!r}: {first[1]}")
    rows = [
        _row(concept.name, layer, vectors[concept.name], seen.cases, seed)
        for layer, vectors in found.items()
        for concept in concepts
    ]
    record = SensitivitiesRecord(
        target=str(bound),
        rows=tuple(adjusted(rows)),
        random_directions=random_directions,
        selection=selection.ids,
        held_out=scored.ids,
        without_score=seen.without_score,
    )
    return Sensitivities(record, {layer: of for layer in found if (of := _of(layer, found[layer]))})


def _check(concepts: Sequence[Concept], random_directions: int) -> None:
    names = [concept.name for concept in concepts]
    if len({*names}) < len(names) or not names:
        raise ConfigError("concepts need distinct names, and there is one at least")
    if random_directions < FEWEST_RANDOM:
        raise ConfigError(
            f"{random_directions} random directions cannot show p <= 0.05; take {FEWEST_RANDOM} "
            "at least"
        )


def _of(layer: str, vectors: Mapping[str, ActivationVectors | None]) -> Directions | None:
    known = {name: each for name, each in vectors.items() if each is not None}
    if not known:
        return None
    weights = torch.stack([each.vectors[0] for each in known.values()]).float()
    offset = torch.tensor([-each.threshold for each in known.values()])
    return Directions.linear(layer, weights, tuple(known), offset, "least-squares classifier")


def _row(
    concept: str,
    layer: str,
    vectors: ActivationVectors | None,
    cases: Sequence[CaseEvidence],
    seed: int,
) -> SensitivityRecord:
    reason = ""
    gradients = torch.stack([case.gradients[layer] for case in cases])
    if vectors is None:
        reason = "the concept is nowhere, or everywhere, in the selection cases"
        none = torch.zeros(1, gradients.shape[1])
        vectors = ActivationVectors(none, 0.0)
    elif not bool(gradients.any()):
        reason = "no gradient of the score reaches the layer"
    tested = compare_directions(gradients, vectors.vectors)
    accuracy, interval = _accuracy(concept, layer, cases, seed)
    nan = float("nan")
    return SensitivityRecord(
        concept=concept,
        layer=layer,
        cases=len(cases),
        share_positive=tested.share_positive,
        mean=tested.mean,
        random_share=tested.random_share,
        random_mean=tested.random_mean,
        p_share=tested.p_share,
        p_mean=tested.p_mean,
        q_share=nan,
        q_mean=nan,
        accuracy=accuracy,
        accuracy_interval=interval,
        reason=reason,
    )


def _accuracy(
    concept: str, layer: str, cases: Sequence[CaseEvidence], seed: int
) -> tuple[float, tuple[float, float] | None]:
    """Balanced accuracy over all places, and an interval of its mean over cases with both kinds."""
    counts = [case.counts.get((concept, layer)) for case in cases]
    known = [each for each in counts if each is not None]
    if not known:
        return float("nan"), None
    total = torch.stack(known).sum(dim=0)
    each = [_balanced(count) if count is not None else math.nan for count in counts]
    summary = summarize(each, [case.patient for case in cases], seed)
    return _balanced(total), summary.interval


def _balanced(counts: Tensor) -> float:
    """Of hits, positives, correct rejections and negatives; NaN where one kind is missing."""
    hits, positives, rejections, negatives = counts.tolist()
    if not positives or not negatives:
        return math.nan
    return float((hits / positives + rejections / negatives) / 2)


def adjusted(rows: Sequence[SensitivityRecord]) -> list[SensitivityRecord]:
    """The rows with p values adjusted over all of them (Benjamini-Hochberg)."""
    shares = benjamini_hochberg([row.p_share for row in rows])
    means = benjamini_hochberg([row.p_mean for row in rows])
    return [
        row.model_copy(update={"q_share": share, "q_mean": mean})
        for row, share, mean in zip(rows, shares, means, strict=True)
    ]
