"""What the answer loses when units of a concept are replaced, against random sets of units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxplain.concepts.links.class_scores import MEASURES, ClassScores
from voxplain.concepts.links.donors import Donors, ReplacedBy
from voxplain.concepts.links.nodes import (
    ClassOutput,
    ConceptUnits,
    check_channels,
    check_nodes,
)
from voxplain.concepts.links.significance import Array, numbers, p_value, random_sets
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.intervened_rows import InterventionRows
from voxplain.engine.interventions import Replacement, UnitSet, resized
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.statistics import Summary, benjamini_hochberg, summarize


class AblationSettings(BaseModel):
    """How units are replaced.

    Attributes:
        replaced_by: What their values become.
        null_sets: Random sets of as many units of the same layer that each is compared with.
        alpha: False discovery rate.
        seed: Of donors, random sets and resamples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replaced_by: ReplacedBy = "resample"
    null_sets: int = Field(default=200, ge=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class Ablation:
    """What one class loses without one concept.

    Attributes:
        node: Name of the concept.
        output: Name of the class.
        measure: ``logit``, the mean over the region of the class, or ``dice``.
        drop: Value on unchanged images minus that without the concept, over cases.
        clean: Mean value on unchanged images.
        null: Mean drop without random sets of as many units.
        null_high: 95th percentile of the magnitude of that drop.
        p: Share of random sets without which the mean changes by as much, up or down.
        q: The same, adjusted over concepts, classes and measures (Benjamini-Hochberg).
        significant: Whether q is at most the rate asked for.
    """

    node: str
    output: str
    measure: str
    drop: Summary
    clean: float
    null: float
    null_high: float
    p: float
    q: float = math.nan
    significant: bool = False


def unit_ablation(
    model: Model | nn.Module,
    cohort: Cohort,
    nodes: Sequence[ConceptUnits],
    outputs: Sequence[ClassOutput],
    settings: AblationSettings | None = None,
) -> tuple[Ablation, ...]:
    """Replaces the units of each concept in turn, and measures each class over its region.

    With ``ClassOutput.within`` the effect is that on one region, such as a quadrant of the lesion.
    For a concept found by dissection or clustering this is its significance for the answer.

    Args:
        model: The network, without windows.
        cohort: The cases; at least two for ``resample``.
        nodes: The concepts, in any layers.
        outputs: The classes.
        settings: How.

    Raises:
        ConfigError: If a node names units that its layer does not have, or nothing is asked for.
        TargetError: If a class does not exist.
    """
    chosen, studied = settings or AblationSettings(), Model.of(model)
    check_nodes(nodes, outputs)
    if not nodes or not outputs or not len(cohort):
        raise ConfigError("an ablation needs at least one concept, one class and one case")
    layers = Context.open(studied, next(iter(cohort)).image).layers
    channels = {node.tap: layers.channels(node.tap) for node in nodes}
    for node in nodes:
        check_channels(node, channels[node.tap])
    drawn = {
        _key(node): random_sets(node, channels[node.tap], chosen.null_sets, chosen.seed)
        for node in nodes
        if chosen.null_sets
    }
    taps = tuple(channels)
    donors = Donors(studied, cohort, taps, chosen.replaced_by, chosen.seed)
    cases = [_Ablated.of(studied, case, donors, nodes, outputs, drawn) for case in cohort]
    found = [
        ablation
        for number, node in enumerate(nodes)
        for ablation in _of_node(number, node, outputs, cases, chosen.seed)
    ]
    return _adjusted(found, chosen.alpha)


_Key = tuple[Tap, int, bool]


def _key(node: ConceptUnits) -> _Key:
    return node.tap, node.size, node.units.directions is None


@dataclass(frozen=True, eq=False)
class _Ablated:
    """Mean logits and Dice of one case, ``(2 x classes,)`` each.

    Attributes:
        patient: Of the case.
        clean: On the unchanged image.
        nodes: ``(nodes, ...)`` without each node.
        drawn: ``(sets, ...)`` without random sets.
    """

    patient: str
    clean: Array
    nodes: Array
    drawn: Mapping[_Key, Array]

    @classmethod
    def of(
        cls,
        model: Model,
        case: CohortCase,
        donors: Donors,
        nodes: Sequence[ConceptUnits],
        outputs: Sequence[ClassOutput],
        drawn: Mapping[_Key, Sequence[UnitSet]],
    ) -> _Ablated:
        context = Context.open(model, case.image)
        scores, values = ClassScores(context, case, outputs), donors.of(case, context)
        without: dict[int, Array] = {}
        random: dict[_Key, Array] = {}
        for tap in dict.fromkeys(node.tap for node in nodes):
            own = [number for number, node in enumerate(nodes) if node.tap == tap]
            keys = [key for key in drawn if key[0] == tap]
            sets = [nodes[number].units for number in own]
            sets += [units for key in keys for units in drawn[key]]
            found = _without(context, tap, values[tap], sets, scores)
            without |= dict(zip(own, found, strict=False))
            start = len(own)
            for key in keys:
                random[key] = found[start : start + len(drawn[key])]
                start += len(drawn[key])
        clean = numbers(scores(scores.unperturbed.output))[0]
        ordered = np.stack([without[number] for number in range(len(nodes))])
        return cls(case.patient, clean, ordered, random)


def _without(
    context: Context, tap: Tap, values: Tensor, sets: Sequence[UnitSet], scores: ClassScores
) -> Array:
    """Mean logits and Dice without each set of units, ``(sets, 2 x classes)``."""
    cells = observe(context, (tap,)).values[tap].shape[1:]
    given = resized(values, cells)
    parts: list[Tensor] = []

    def seen(_: range, __: object, output: Tensor | None) -> None:
        assert output is not None
        parts.append(scores(output))

    rows = [(Replacement(tap, units, given),) for units in sets]
    InterventionRows(context, (tap,)).run(rows, (), seen)
    return numbers(torch.cat(parts))


def _of_node(
    number: int,
    node: ConceptUnits,
    outputs: Sequence[ClassOutput],
    cases: Sequence[_Ablated],
    seed: int,
) -> list[Ablation]:
    clean = np.stack([case.clean for case in cases])
    drops = clean - np.stack([case.nodes[number] for case in cases])
    key = _key(node)
    random = np.stack([case.drawn[key] for case in cases]) if key in cases[0].drawn else None
    names = [(output.name, measure) for output in outputs for measure in MEASURES]
    found = []
    for column, (output, measure) in enumerate(names):
        known = np.isfinite(drops[:, column])
        null = np.zeros(0)
        if random is not None and known.any():
            null = (clean[known, column, None] - random[known][:, :, column]).mean(axis=0)
        patients = [case.patient for case in cases]
        drop = summarize(drops[:, column].tolist(), patients, seed)
        found.append(
            Ablation(
                node.name,
                output,
                measure,
                drop,
                float(clean[known, column].mean()) if known.any() else math.nan,
                float(null.mean()) if len(null) else math.nan,
                float(np.quantile(np.abs(null), 0.95)) if len(null) else math.nan,
                p_value(abs(drop.mean), np.abs(null)),
            )
        )
    return found


def _adjusted(found: Sequence[Ablation], alpha: float) -> tuple[Ablation, ...]:
    adjusted = benjamini_hochberg([each.p for each in found])
    return tuple(
        replace(each, q=q, significant=q <= alpha) for each, q in zip(found, adjusted, strict=True)
    )
