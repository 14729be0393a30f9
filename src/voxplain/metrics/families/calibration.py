"""Calibration of the network: is a class that it gives 80 % there four times in five?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from scipy import optimize
from torch import Tensor
from torch.nn import functional

from voxplain.engine.randomness import generator
from voxplain.engine.truth import Binning, Points, calibration_gaps
from voxplain.metrics.context import MetricContext
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric, to_compare
from voxplain.metrics.maps import Undefined
from voxplain.metrics.metric import Direction, NetworkMetric, Value, register
from voxplain.metrics.queries.voxel_sets import dilated
from voxplain.targets.field import INSIDE, lies_in_unit_range

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried; the coldest is the best where all predictions are right."""

_ROWS_AT_ONCE = 2**20
"""Voxels whose probabilities are computed together."""

_MOST_VOXELS = 2**18
"""Voxels on which a temperature is fitted; in larger images so many are drawn."""


@register
class Calibration(CrossCaseMetric, NetworkMetric):
    """How far the probability of the target's class is from how often the class is there.

    Expected calibration error: in bins of the probability, its mean is compared with the share of
    cases where the class is there; the gaps are averaged, each bin weighted by its size. It is
    about the network and reads no map, so that there is one row per image.

    For dense outputs it is taken over the voxels of each image, against its reference mask. Easy
    background makes it small, the more so the smaller the object; a margin leaves it out.

    For classifiers it is taken over all cases whose `truth` is known: the value of a case is the
    gap in its bin, so that the mean over cases is the error; its interval takes the bins as given.
    With few cases the error is overestimated. The target `predicted` gives the error of Guo et
    al.; a fixed class that of its own probability.

    The facts hold the error and the probabilities after temperature scaling. The temperature
    (0.05 to 20) has the largest likelihood on the other patients' cases; for dense outputs on the
    same image, so that it shows how much could be gained at best. Where the temperature is at an
    end of this range, as when all other cases are right, the scaled probability of a case is left
    out.
    """

    family: ClassVar[str] = "calibration"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Guo et al., 2017"

    name: Literal["calibration"] = "calibration"
    bins: int = Field(default=15, ge=1, description="of the probability")
    binning: Binning = Field(
        default="equal_width", description="bins of the same width, or with as many cases each"
    )
    margin: float | None = Field(
        default=None,
        ge=0,
        description="mm around the reference and the predicted object, beyond which voxels do not "
        "count; absent: all count",
    )

    def score(self, context: MetricContext) -> Value:
        """Over the voxels of a dense output; for a classifier its scores and the true class."""
        if context.bound.unperturbed.is_dense:
            return self._of_voxels(context)
        return to_compare(_case_summary(context))

    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Per case the gap of its bin; probabilities before and after scaling in the facts."""
        logits, labels, truths = _joined(cases)
        there = labels == truths
        temperatures = _temperatures_of_others(cases, logits, labels, truths)
        plain = logits.odds(labels).sigmoid()
        scaled_logits = Logits(logits.values / temperatures[:, None], logits.softmax)
        scaled = scaled_logits.odds(labels).sigmoid()
        gaps, curve = self._gaps(plain, there)
        common = {
            "cases": len(cases),
            "error": float(gaps.mean()),
            "error_scaled": float(self._gaps(scaled, there)[0].mean()),
        }
        columns = (column.tolist() for column in (gaps, plain, temperatures, scaled))
        return [
            Value(gap, curve, common | _probabilities(*own))
            for gap, *own in zip(*columns, strict=True)
        ]

    def _of_voxels(self, context: MetricContext) -> Value:
        label = context.bound.field.label_of(context.input.row)
        if label is None or context.bound.field.layer is not None:
            raise Undefined("the target is not about a class of the output")
        there, logits = _reference(context).flatten(), _logits(context)
        taken = _taken(context, self.margin)
        if taken is not None:
            there, logits = there[taken], logits.rows(taken)
        labels = torch.full_like(there, label, dtype=torch.long)
        temperature = _voxel_temperature(logits, labels, there, context.input.key)
        plain, scaled = (logits.odds(labels, t).sigmoid() for t in (1.0, temperature))
        gaps, curve = self._gaps(plain, there)
        facts = {
            "temperature": temperature,
            "error_scaled": float(self._gaps(scaled, there)[0].mean()),
            "mean_probability": float(plain.mean()),
            "share": float(there.double().mean()),
        }
        return Value(float(gaps.mean()), curve, facts)

    def _gaps(self, probabilities: Tensor, there: Tensor) -> tuple[Tensor, Points]:
        return calibration_gaps(probabilities, there, self.bins, self.binning)


@dataclass(frozen=True, eq=False)
class Logits:
    """Scores before they become probabilities.

    Attributes:
        values: ``(n, K)``.
        softmax: Whether the classes exclude each other; else each has a probability of its own.
    """

    values: Tensor
    softmax: bool

    def odds(self, labels: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-odds of one class in each row ``(n,)`` float64; their sigmoid is its probability."""
        parts = zip(
            torch.split(self.values, _ROWS_AT_ONCE),
            torch.split(labels, _ROWS_AT_ONCE),
            strict=True,
        )
        return torch.cat(
            [self._odds(values.double() / temperature, own_labels) for values, own_labels in parts]
        )

    def _odds(self, scaled: Tensor, labels: Tensor) -> Tensor:
        if scaled.shape[1] == 1:
            return torch.where(labels == 1, scaled[:, 0], -scaled[:, 0])
        own = scaled.gather(1, labels[:, None])[:, 0]
        if not self.softmax:
            return own
        others = scaled.scatter(1, labels[:, None], -math.inf)
        return own - others.logsumexp(dim=1)

    def rows(self, chosen: Tensor) -> Logits:
        """Some of the rows."""
        return Logits(self.values[chosen], self.softmax)


def _case_summary(context: MetricContext) -> dict[str, Any]:
    """The scores of a classifier for one image, and the true class."""
    logits, truth = _logits(context), context.case.truth
    classes = max(2, logits.values.shape[1])
    if truth is None:
        raise Undefined("the true class of the image is not known (truth)")
    if truth >= classes:
        raise Undefined(f"the true class is {truth}, and the output has classes 0 to {classes - 1}")
    label = context.bound.field.label_of(context.input.row)
    return {
        "logits": [float(f"{value:.7g}") for value in logits.values[0].tolist()],
        "softmax": logits.softmax,
        "label": context.predicted_class if label is None else label,
        "truth": truth,
    }


def _logits(context: MetricContext) -> Logits:
    """Of the voxels, or of the image, ``(n, K)``.

    Raises:
        Undefined: If the target says that the output is probabilities, and it is not.
    """
    output = context.bound.unperturbed.output[context.input.row]
    values = output.reshape(len(output), -1).T
    activation = context.bound.activation
    if activation not in INSIDE:
        return Logits(values, activation == "softmax")
    if not lies_in_unit_range(values):
        raise Undefined(
            "the target says that the output is a probability, but it is not between 0 and 1"
        )
    if activation == "sigmoid_inside":
        return Logits(torch.logit(values.double(), eps=1e-12), False)
    return Logits(values.double().clamp_min(1e-12).log(), True)


def _reference(context: MetricContext) -> Tensor:
    """Where the class is, ``(*spatial)`` bool on the voxels of the output."""
    if context.reference is None:
        raise Undefined("there is no reference mask to compare probabilities with")
    output = context.bound.unperturbed.output
    return context.place.on_output(context.reference).to(output.device)


def _taken(context: MetricContext, margin: float | None) -> Tensor | None:
    """The voxels of the output that count, flat; None where all do."""
    near = None if margin is None else _near_objects(context, margin).flatten()
    if context.ignored is None:
        return near
    output = context.bound.unperturbed.output
    known = ~context.place.on_output(context.ignored).to(output.device).flatten()
    if not bool(known.any()):
        raise Undefined("the reference says nothing of the voxels of the output")
    return known if near is None else near & known


def _near_objects(context: MetricContext, margin: float) -> Tensor:
    """Voxels in or near the true or predicted object, ``(*spatial)`` bool; margin in mm."""
    objects = _reference(context) | context.predicted
    if not bool(objects.any()):
        raise Undefined("there is neither a true nor a predicted object, so no voxel is near one")
    cells = zip(context.spacing, context.place.stride, strict=True)
    return dilated(objects, margin, tuple(side * abs(stride) for side, stride in cells))


def _voxel_temperature(logits: Logits, labels: Tensor, there: Tensor, key: str) -> float:
    """The temperature that fits the voxels of one image."""
    drawn = _drawn(there, key)
    own_logits, own_labels, own_there = logits.rows(drawn), labels[drawn], there[drawn]
    return _best_temperature(lambda t: _loss(own_logits.odds(own_labels, t), own_there))


def _drawn(there: Tensor, key: str) -> Tensor:
    """Numbers of the voxels on which a temperature is fitted."""
    if len(there) <= _MOST_VOXELS:
        return torch.arange(len(there), device=there.device)
    draws = torch.randint(len(there), (_MOST_VOXELS,), generator=generator(key, "calibration"))
    return draws.to(there.device)


def _joined(cases: Sequence[CaseSummary]) -> tuple[Logits, Tensor, Tensor]:
    """Logits, classes of the target and true classes of all cases."""
    logits, labels, truths = (
        [case.summary[name] for case in cases] for name in ("logits", "label", "truth")
    )
    values = torch.tensor(logits, dtype=torch.float64)
    softmax = bool(cases[0].summary["softmax"])
    return Logits(values, softmax), torch.tensor(labels), torch.tensor(truths)


def _temperatures_of_others(
    cases: Sequence[CaseSummary], logits: Logits, labels: Tensor, truths: Tensor
) -> Tensor:
    """For each case the temperature that fits the cases of the other patients, ``(n,)``."""
    exclusive = logits.softmax or logits.values.shape[1] == 1
    fitted, there = (truths, torch.ones_like(truths)) if exclusive else (labels, labels == truths)
    patients = [case.patient for case in cases]

    def temperature(patient: str) -> float:
        others = torch.tensor([other != patient for other in patients])
        own_logits, own_labels, own_there = logits.rows(others), fitted[others], there[others]
        return _best_temperature(lambda t: _loss(own_logits.odds(own_labels, t), own_there))

    by_patient = {patient: temperature(patient) for patient in dict.fromkeys(patients)}
    return torch.tensor([by_patient[patient] for patient in patients], dtype=torch.float64)


def _loss(odds: Tensor, there: Tensor) -> float:
    """The mean negative log-likelihood."""
    return float(functional.softplus(torch.where(there.bool(), -odds, odds)).mean())


def _best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the smallest loss."""
    best = optimize.minimize_scalar(
        lambda log: loss(math.exp(log)),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return math.exp(float(best.x))


def _probabilities(plain: float, temperature: float, scaled: float) -> dict[str, float]:
    """The probabilities of one case; none after scaling where the temperature is at an end.

    There the likelihood has no maximum inside: if all other cases are right, it grows with ever
    more certainty, whatever this case is.
    """
    facts = {"probability": plain, "temperature": temperature}
    inside = 1.01 * COLDEST < temperature < HOTTEST / 1.01
    return facts | ({"probability_scaled": scaled} if inside else {})
