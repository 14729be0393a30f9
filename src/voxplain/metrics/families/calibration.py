"""Calibration: is what a network calls 80 % right four times in five? About it, not about a map."""

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
from voxplain.metrics.context import MetricContext
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Value, register
from voxplain.metrics.queries.voxel_sets import dilated
from voxplain.targets.links import settled

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried; the coldest is found where all predictions are right."""

_AT_ONCE = 2**20
"""Voxels that are looked at together."""

_MOST = 2**18
"""Voxels from which a temperature is found; of larger images so many are drawn."""

Points = tuple[tuple[float, float], ...]


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
        parts = zip(torch.split(self.values, _AT_ONCE), torch.split(labels, _AT_ONCE), strict=True)
        return torch.cat([self._odds(part.double() / temperature, own) for part, own in parts])

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


@register
class Calibration(CrossCaseMetric):
    """How far the probability of the target's class is from how often it is there.

    Expected calibration error: in bins of the probability, its mean is compared with the share of
    cases where the class is there; the gaps are averaged, each bin by its size. It says something
    about the network and nothing about maps, so that there is one row per image.

    For dense outputs it is taken over the voxels of each image, against its reference mask. Easy
    background makes it small, the more so the smaller the object; a margin leaves it out.

    For classifiers it is taken over all cases whose `truth` is known: the value of a case is the
    gap in its bin, so that the mean over cases is the error; its interval takes the bins as given.
    Few cases make it too large. The target `predicted` gives the error of Guo et al.; a fixed
    class that of its own probability.

    The facts hold the error and the probabilities after temperature scaling. The temperature
    (0.05 to 20) has the largest likelihood on the other patients' cases; of dense outputs on the
    same image, so that it shows how much could be gained, not what would be. Where it is at an end,
    as for others that are all right, the scaled probability of a case is left out.
    """

    family: ClassVar[str] = "calibration"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Guo et al., 2017"
    of_network: ClassVar[bool] = True

    name: Literal["calibration"] = "calibration"
    bins: int = Field(default=15, ge=1, description="of the probability")
    binning: Literal["equal_width", "equal_mass"] = Field(
        default="equal_width", description="bins of the same width, or with as many cases each"
    )
    margin: float | None = Field(
        default=None,
        ge=0,
        description="mm around the reference and the predicted object, beyond which voxels do not "
        "count; absent: all count",
    )

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Over the voxels of a dense output; of a classifier a sketch."""
        if context.bound.seen.is_dense:
            return self._of_voxels(context)
        return super().score(field, context)

    def sketch(self, field: MapField, context: MetricContext) -> dict[str, Any]:
        """What the network says of the image, and what is true."""
        logits = _logits(context)
        classes = max(2, logits.values.shape[1])
        if context.truth is None:
            raise Undefined("the true class of the image is not known (truth)")
        if context.truth >= classes:
            raise Undefined(f"the truth is class {context.truth}, of {classes} from 0 on")
        label = context.bound.field.label_of(context.item.row)
        return {
            "logits": [float(f"{value:.7g}") for value in logits.values[0].tolist()],
            "softmax": logits.softmax,
            "label": context.predicted_class if label is None else label,
            "truth": context.truth,
        }

    def conclude(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Per case the gap of its bin; probabilities before and after scaling in the facts."""
        logits, labels, truths = _gathered(cases)
        there = labels == truths
        warmth = _without_own(cases, logits, labels, truths)
        plain = logits.odds(labels).sigmoid()
        scaled = Logits(logits.values / warmth[:, None], logits.softmax).odds(labels).sigmoid()
        gaps, curve = self._compared(plain, there)
        of_all = {
            "cases": len(cases),
            "error": float(gaps.mean()),
            "error_scaled": float(self._compared(scaled, there)[0].mean()),
        }
        of_each = zip(*(part.tolist() for part in (gaps, plain, warmth, scaled)), strict=True)
        return [Value(gap, curve, of_all | _said(*own)) for gap, *own in of_each]

    def _of_voxels(self, context: MetricContext) -> Value:
        label = context.bound.field.label_of(context.item.row)
        if label is None or context.bound.field.layer is not None:
            raise Undefined("the target is not about a class of the output")
        there, logits = _reference(context).flatten(), _logits(context)
        if self.margin is not None:
            near = _near(context, self.margin).flatten()
            there, logits = there[near], logits.rows(near)
        labels = torch.full_like(there, label, dtype=torch.long)
        drawn = _drawn(there, context.item.key)
        some, true = logits.rows(drawn), there[drawn]
        warmth = _temperature(lambda t: _loss(some.odds(labels[drawn], t), true))
        plain, scaled = (logits.odds(labels, t).sigmoid() for t in (1.0, warmth))
        facts = {
            "temperature": warmth,
            "error_scaled": float(self._compared(scaled, there)[0].mean()),
            "mean_probability": float(plain.mean()),
            "share": float(there.double().mean()),
        }
        gaps, curve = self._compared(plain, there)
        return Value(float(gaps.mean()), curve, facts)

    def _compared(self, chances: Tensor, there: Tensor) -> tuple[Tensor, Points]:
        """|mean probability - share| in the bin of each ``(n,)``, and both in every bin in use."""
        place = self._places(chances)
        counts = torch.bincount(place, minlength=self.bins)
        said, true = (
            torch.bincount(place, weights, minlength=self.bins) / counts.clamp_min(1)
            for weights in (chances, there.double())
        )
        used = counts > 0
        curve = tuple(zip(said[used].tolist(), true[used].tolist(), strict=True))
        return (said - true).abs()[place], curve

    def _places(self, chances: Tensor) -> Tensor:
        """The bin of each, ``(n,)``; bins hold their upper end, and equal values share a bin."""
        if self.binning == "equal_width":
            return (chances * self.bins).ceil().long().clamp(1, self.bins) - 1
        count = len(chances)
        ends = torch.arange(1, self.bins, device=chances.device) * count / self.bins
        inner = chances.sort().values[(ends.ceil().long() - 1).clamp_min(0)]
        return torch.searchsorted(inner, chances)


def _logits(context: MetricContext) -> Logits:
    """Of the voxels, or of the image, ``(n, K)``.

    Raises:
        Undefined: If the output is said to be probabilities, and is not.
    """
    output = context.bound.seen.output[context.item.row]
    values = output.reshape(len(output), -1).T
    activation = context.bound.target.activation
    if activation != "none":
        return Logits(values, settled(activation, len(output)) == "softmax")
    if bool(((values < 0) | (values > 1)).any()):
        raise Undefined("the output is no probability, and the target says that it is one")
    if len(output) == 1:
        return Logits(torch.logit(values.double(), eps=1e-12), False)
    return Logits(values.double().clamp_min(1e-12).log(), True)


def _reference(context: MetricContext) -> Tensor:
    """Where the class is, ``(*spatial)`` bool on the voxels of the output."""
    if context.reference is None:
        raise Undefined("there is no reference mask that probabilities could be compared with")
    output = context.bound.seen.output
    if context.reference.shape != output.shape[2:]:
        raise Undefined("the output has another resolution than the image")
    return context.reference.to(output.device)


def _near(context: MetricContext, margin: float) -> Tensor:
    """Up to so many mm around the object, true or predicted, ``(*spatial)`` bool."""
    objects = _reference(context) | context.predicted
    if not bool(objects.any()):
        raise Undefined("there is neither a true nor a predicted object to stay near")
    return dilated(objects, margin, context.spacing)


def _drawn(there: Tensor, key: str) -> Tensor:
    """Numbers of the voxels that a temperature is found on."""
    if len(there) <= _MOST:
        return torch.arange(len(there), device=there.device)
    draws = torch.randint(len(there), (_MOST,), generator=generator(key, "calibration"))
    return draws.to(there.device)


def _said(plain: float, warmth: float, scaled: float) -> dict[str, float]:
    """The probabilities of one case; none after scaling where the best temperature is beyond all.

    Cases of others that are all right ask for certainty, whatever this one is.
    """
    said = {"probability": plain, "temperature": warmth}
    found = 1.01 * COLDEST < warmth < HOTTEST / 1.01
    return said | ({"probability_scaled": scaled} if found else {})


def _gathered(cases: Sequence[CaseSummary]) -> tuple[Logits, Tensor, Tensor]:
    """Logits, classes of the target and true classes of all cases."""
    logits, labels, truths = (
        [case.sketch[name] for case in cases] for name in ("logits", "label", "truth")
    )
    values = torch.tensor(logits, dtype=torch.float64)
    softmax = bool(cases[0].sketch["softmax"])
    return Logits(values, softmax), torch.tensor(labels), torch.tensor(truths)


def _without_own(
    cases: Sequence[CaseSummary], logits: Logits, labels: Tensor, truths: Tensor
) -> Tensor:
    """For each case the temperature that the cases of the other patients give, ``(n,)``."""
    exclusive = logits.softmax or logits.values.shape[1] == 1
    asked, there = (truths, torch.ones_like(truths)) if exclusive else (labels, labels == truths)
    whose = [case.patient for case in cases]

    def found(patient: str) -> float:
        others = torch.tensor([name != patient for name in whose])
        part, own, true = logits.rows(others), asked[others], there[others]
        return _temperature(lambda t: _loss(part.odds(own, t), true))

    known = {patient: found(patient) for patient in dict.fromkeys(whose)}
    return torch.tensor([known[patient] for patient in whose], dtype=torch.float64)


def _loss(odds: Tensor, there: Tensor) -> float:
    """The mean negative log-likelihood."""
    return float(functional.softplus(torch.where(there.bool(), -odds, odds)).mean())


def _temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the smallest loss."""
    found = optimize.minimize_scalar(
        lambda log: loss(math.exp(log)),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return math.exp(float(found.x))
