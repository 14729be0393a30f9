"""Cases in which a score draws on a unit most and least: relevance maximization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.execution.networks import run_networks
from voxplain.engine.execution.session import Session
from voxplain.engine.gradients.reducers import MeanGradient, TimesValue
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.rules import Lrp
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import Tap
from voxplain.errors import RuleError, TargetError
from voxplain.models.model import Model
from voxplain.records.relevance import (
    RelevanceExemplarsRecord,
    RelevanceRule,
    RelevantCase,
    UnitRelevance,
)
from voxplain.targets import Target, parse_target


def relevance_exemplars(
    model: Model | nn.Module,
    cohort: Cohort,
    layers: Sequence[str],
    target: Target | int | str,
    *,
    count: int = 3,
    seed: int = 0,
) -> RelevanceExemplarsRecord:
    """The cases in which a score draws on each unit most, and those in which it speaks against it.

    The relevance of a unit in a case is the sum over its cells (and windows) of what layer-wise
    relevance propagation brings there from the score. A large activation need not be a large
    relevance: the class may not read the unit, or read it with a negative weight. Where the network
    has functions without a rule, activation times gradient is taken for all cases, and the record
    says why. Cases are read one after another; one number per unit and case is kept.

    Achtibat et al., From attribution maps to human-understandable explanations through concept
    relevance propagation, 2023.

    Args:
        model: The network; left as it was.
        cohort: The cases.
        layers: Paths of layers.
        target: What is explained, for a classifier or a segmentation.
        count: Cases that are kept at each end.
        seed: Of a network that draws random numbers.

    Raises:
        TargetError: If there is nothing to explain in any of the cases.
        ModelError: If the network has no gradients, or a layer does not exist.
    """
    asked = parse_target(target)
    contexts = CaseContexts(model, seed)
    try:
        sums, reason = _sums(contexts, cohort, tuple(layers), asked, "lrp"), ""
    except RuleError as error:
        reason = str(error)
        sums = _sums(contexts, cohort, tuple(layers), asked, "activation x gradient")
    return RelevanceExemplarsRecord(
        target=str(asked),
        rule="activation x gradient" if reason else "lrp",
        reason=reason,
        cases=tuple(sums.cases),
        left_out=tuple(sums.left_out),
        sizes={layer: rows[0].size for layer, rows in sums.by_layer.items()},
        units=tuple(sums.units(count)),
    )


def relevance_map(
    contexts: CaseContexts,
    case: CohortCase,
    tap: Tap,
    unit: int,
    target: Target,
    rule: RelevanceRule,
) -> Tensor:
    """The relevance of one unit at the places of an image, ``(*spatial)``.

    Cells are interpolated from where they lie, and windows add up.

    Raises:
        ModelError: If the layer has no places in the image.
    """
    context = contexts.open(case)
    found = unit_relevance(context, (tap.path,), target, rule)[tap.path]
    return context.layers.on_image(tap, found[unit : unit + 1], windows="sum")[0].cpu()


def unit_relevance(
    context: Context, layers: tuple[str, ...], target: Target, rule: RelevanceRule
) -> dict[str, Tensor]:
    """The relevance of every cell of some layers for a score, in one pass of one image.

    Returns:
        By the path of the layer ``(K, *cells)``; ``(K, windows, *cells)`` for a network with
        windows, whose relevance adds up.

    Raises:
        RuleError: If the network has a function without a rule.
        TargetError: If there is nothing to explain in this image.
    """
    method = _RelevanceAtUnits(layers=layers, rule=rule)
    with torch.inference_mode(False):
        (outputs,) = run_networks([Session.open(context, (method,), target)])
    maps = outputs[method.key][0].maps
    return {path: value.cpu() for path, value in maps.items() if path is not None}


class _RelevanceAtUnits(Method):
    """The relevance of the cells of layers."""

    name: Literal["relevance of units"] = "relevance of units"
    layers: tuple[str, ...]
    rule: RelevanceRule

    def requests(self, context: Context) -> tuple[Request, ...]:
        """One pass at the image."""
        places = tuple(Tap(path) for path in self.layers)
        if self.rule == "lrp":
            return (GradientRequest(Original(), MeanGradient, Lrp(), places=places),)
        return (GradientRequest(Original(), TimesValue, places=places),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """By the path of the layer."""
        return {tap.path: value for tap, value in results[0].items()}


@dataclass
class _CaseRelevance:
    """The relevance of every unit in every case.

    Attributes:
        cases: With something to explain, in the order of the rows.
        left_out: Without.
        by_layer: A row ``(K,)`` per case.
    """

    cases: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    by_layer: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, case: str, relevance: Mapping[str, Tensor]) -> None:
        """Takes in a case."""
        self.cases.append(case)
        for layer, values in relevance.items():
            row = values.double().reshape(len(values), -1).sum(dim=1).numpy()
            self.by_layer.setdefault(layer, []).append(row)

    def units(self, count: int) -> list[UnitRelevance]:
        """What is said of every unit; equal cases are ordered by their ids."""
        found = []
        order = sorted(range(len(self.cases)), key=self.cases.__getitem__)
        names = [self.cases[row] for row in order]
        for layer, rows in self.by_layer.items():
            table = np.stack(rows)[order]
            means = table.mean(axis=0)
            ranks = np.argsort(np.argsort(-np.abs(means), kind="stable"), kind="stable")
            for index, mean in enumerate(means.tolist()):
                own = table[:, index]
                found.append(
                    UnitRelevance(
                        layer=layer,
                        index=index,
                        mean=mean,
                        rank=int(ranks[index]) + 1,
                        top=_first(names, own, np.argsort(-own, kind="stable")[:count]),
                        bottom=_first(names, own, np.argsort(own, kind="stable")[:count]),
                    )
                )
        return found


def _first(
    names: Sequence[str], values: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[RelevantCase, ...]:
    return tuple(RelevantCase(case=names[row], value=float(values[row])) for row in rows)


def _sums(
    contexts: CaseContexts,
    cohort: Cohort,
    layers: tuple[str, ...],
    target: Target,
    rule: RelevanceRule,
) -> _CaseRelevance:
    sums, reason = _CaseRelevance(), ""
    for case in cohort:
        try:
            sums.add(case.id, unit_relevance(contexts.open(case), layers, target, rule))
        except TargetError as error:
            sums.left_out.append(case.id)
            reason = str(error)
    if not sums.cases:
        raise TargetError(f"no case has anything to explain for {target}: {reason}")
    return sums
