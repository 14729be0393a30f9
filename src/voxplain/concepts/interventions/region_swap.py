"""What a class loses when its region looks like another one, or when a lesion comes or goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from voxplain.concepts.interventions.regions import SWAPS, inserted, removed
from voxplain.concepts.links.class_scores import ClassScores
from voxplain.concepts.links.donors import Donors
from voxplain.concepts.links.nodes import ClassOutput, check_nodes
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.statistics import Summary, summarize

SwapKind = Literal["mean_shift", "histogram", "removal", "insertion"]


@dataclass(frozen=True)
class SwapEffect:
    """What one class loses over the cases that show it.

    Attributes:
        kind: What was done to the image.
        source: The class whose look was taken; ``surroundings`` for a removal, ``another case``
            for an insertion.
        target: The class whose region was changed.
        dice: Dice of the target before minus after; for an insertion, the share of the inserted
            voxels that are predicted as the class after minus before.
        logit: Mean logit of the target over its region, or the inserted one, before minus after;
            for an insertion after minus before.
    """

    kind: SwapKind
    source: str
    target: str
    dice: Summary
    logit: Summary


def region_swap(
    model: Model | nn.Module,
    cohort: Cohort,
    outputs: Sequence[ClassOutput],
    kind: SwapKind = "mean_shift",
    seed: int = 0,
) -> tuple[SwapEffect, ...]:
    """Changes the region of each class in turn, and measures what the network makes of it.

    ``mean_shift`` and ``histogram`` give the region of class j the look of class i, per channel:
    ``effect_ij = Dice_j(f(x)) - Dice_j(f(x'))``. ``removal`` fills the region in from the voxels
    around it; a class that is found all the same is not read from its own voxels. ``insertion``
    adds the region of another case. Networks with windows are fine.

    Args:
        model: A segmenter.
        cohort: Cases with reference labels.
        outputs: The classes, with the labels of the reference.
        kind: What is done to the image.
        seed: Of the donors of insertions.

    Raises:
        ConfigError: If a case has no labels, or there are too few cases or classes.
    """
    studied = Model.of(model)
    check_nodes((), outputs)
    changes = _changes(studied, cohort, outputs, kind, seed)
    drops: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    for case in cohort:
        if case.labels is None:
            raise _unlabeled(case)
        for source, target, dice, logit in _measured(studied, case, outputs, kind, changes):
            drops.setdefault((source, target), []).append((case.patient, dice, logit))
    return tuple(_effect(kind, pair, found, seed) for pair, found in drops.items())


def _unlabeled(case: CohortCase) -> ConfigError:
    return ConfigError(f"case {case.id}: regions are swapped by reference labels; it has none")


def _effect(
    kind: SwapKind, pair: tuple[str, str], found: list[tuple[str, float, float]], seed: int
) -> SwapEffect:
    patients, dice, logit = zip(*found, strict=True)
    parts = (summarize(list(values), list(patients), seed) for values in (dice, logit))
    return SwapEffect(kind, *pair, *parts)


_Changes = Callable[[CohortCase], Iterator[tuple[str, str, Tensor, Tensor]]]
"""Of a case: source, target, the changed image, and the mask of the voxels that changed."""


def _changes(
    model: Model, cohort: Cohort, outputs: Sequence[ClassOutput], kind: SwapKind, seed: int
) -> _Changes:
    if kind == "removal":
        return lambda case: _removals(case, outputs)
    if kind == "insertion":
        donors = Donors(model, cohort, (), "resample", seed)
        return lambda case: _insertions(case, cohort[donors.donor(case.id)], outputs)
    if len(outputs) < 2:
        raise ConfigError(f"{kind} gives a class the look of another; name at least two classes")
    return lambda case: _swaps(case, outputs, kind)


def _swaps(
    case: CohortCase, outputs: Sequence[ClassOutput], kind: SwapKind
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    for source in outputs:
        for target in outputs:
            masks = [_mask(case, source), _mask(case, target)]
            masks[1] = masks[1] & ~masks[0]  # voxels of both look like the source already
            if source is not target and all(mask.any() for mask in masks):
                other = SWAPS[kind](case.image.data, *masks)
                yield source.name, target.name, other, masks[1]


def _removals(
    case: CohortCase, outputs: Sequence[ClassOutput]
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    for target in outputs:
        mask = _mask(case, target)
        if mask.any() and not mask.all():
            other = removed(case.image.data, mask, case.image.grid.spacing_mm)
            yield "surroundings", target.name, other, mask


def _insertions(
    case: CohortCase, donor: CohortCase, outputs: Sequence[ClassOutput]
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    if donor.labels is None:
        raise _unlabeled(donor)
    anywhere = torch.stack([_mask(case, output) for output in outputs]).any(dim=0)
    background = case.image.data.flatten(1)[:, :1].view(-1, *(1,) * anywhere.ndim)
    free = (case.image.data != background).any(dim=0) & ~anywhere
    for target in outputs:
        other, mask = inserted(case.image.data, free, donor.image.data, _mask(donor, target))
        if mask.any():
            yield "another case", target.name, other, mask


def _mask(case: CohortCase, output: ClassOutput) -> Tensor:
    assert case.labels is not None
    return output.reference(case.labels)


def _measured(
    model: Model,
    case: CohortCase,
    outputs: Sequence[ClassOutput],
    kind: SwapKind,
    changes: _Changes,
) -> Iterator[tuple[str, str, float, float]]:
    """Source, target, and the changes of Dice and mean logit of the target."""
    context = Context.open(model, case.image)
    plain = ClassScores(context, case, outputs)
    before = plain.unperturbed.output
    names = [output.name for output in outputs]
    for source, target, image, mask in changes(case):
        changed = replace(case.image, data=image)
        after = Context.open(model, changed).look().output
        output = outputs[names.index(target)]
        if kind == "insertion":
            yield source, target, *_found(context, case, output, mask, (before, after))
            continue
        scores = ClassScores(context, case, [output])
        logit, dice = (scores(before) - scores(after))[0].tolist()
        yield source, target, dice, logit


def _found(
    context: Context,
    case: CohortCase,
    output: ClassOutput,
    mask: Tensor,
    answers: tuple[Tensor, Tensor],
) -> tuple[float, float]:
    """Gain of predicted share and mean logit over inserted voxels."""
    only = replace(output, values=(1,), within=None)
    scores = ClassScores(context, replace(case, labels=mask.long()), [only])
    shares, logits = (
        [float(part(answer)[0, 0]) for answer in answers] for part in (scores.recall, scores.logits)
    )
    return shares[1] - shares[0], logits[1] - logits[0]
