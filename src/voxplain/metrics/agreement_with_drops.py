"""Faithfulness in numbers: does what the map assigns equal what the score loses?"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution.identity import identity
from voxplain.attribution.masking import AnyFill, Case, Mean, OneRegionOff
from voxplain.attribution.scene import Scene
from voxplain.metrics.curves import correlation, rank_correlation
from voxplain.metrics.field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.question import Probe, Question
from voxplain.metrics.removal import Shares, sums
from voxplain.metrics.subsets import (
    BoxDrops,
    NoiseDrops,
    Perturbed,
    RandomSubsets,
    SingleRegions,
    SubsetDrops,
)
from voxplain.regions import RegionSpec, Supervoxels

_SLOPES_BYTES = 256 * 2**20


class _Infidelity(Metric):
    """What both forms share: changes I of the image, and <I, map> for each."""

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Yeh et al., 2019"

    perturbation: Literal["noise", "boxes"] = "noise"
    sigma: float = Field(default=0.1, gt=0, description="of the noise, of the intensity range")
    window: float = Field(default=1 / 6, gt=0, le=1, description="side of a box, of each axis")
    fill: AnyFill = Mean()
    draws: int = Field(default=64, ge=2)

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """One set of changes for all maps."""
        if self.perturbation == "noise":
            return (NoiseDrops(self.sigma, self.draws),)
        return (BoxDrops(self.fill, self.window, self.draws),)

    def _pairs(self, field: MapField, question: Question) -> tuple[Tensor, Tensor]:
        """What the map says the score loses, and what it loses, ``(draws,)`` each."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        answer: Any = question.answer(self.probes(question.scene)[0], field)
        if isinstance(answer, Perturbed):
            return _said(field, question, answer), answer.drops
        boxes, drops = answer
        weights = _lost(field, question, self.fill, boxes.size)
        said = [weights[(..., *box)].sum() for box in boxes.boxes]
        return torch.stack(said).double().cpu(), drops


def _said(field: MapField, question: Question, answer: Perturbed) -> Tensor:
    """<I, map> for every draw, ``(draws,)``; noise is drawn once for as many maps as fit."""
    known: dict[MapField, Tensor] = question.remembered(("said", identity(answer.noise)), dict)
    if field not in known:
        others = [other for other in question.judged if other not in known and other is not field]
        at_once = max(1, _SLOPES_BYTES // (8 * question.item.image.numel()))
        fields = [field, *others][:at_once]
        slopes = torch.stack([_slopes(one, question) for one in fields])
        known.update(zip(fields, answer.along(slopes), strict=True))
    return known[field]


def _slopes(field: MapField, question: Question) -> Tensor:
    """The map per unit of intensity; a share of the score divided by the change it stands for.

    That is the intensity, or its difference from the baseline of the method. A share where the
    change is (nearly) 0 has no slope, and counts as none.
    """
    image = question.item.image.double()
    if field.start is not None:
        image = image - field.start.to(image)
    slopes = field.map.double()
    if not field.share:
        return slopes.expand_as(image)
    if len(slopes) != len(image):
        slopes = slopes / len(image)
    near = image.abs() < 1e-6 * image.abs().amax()
    return torch.where(near, torch.zeros_like(image), slopes / torch.where(near, 1.0, image))


def _lost(field: MapField, question: Question, fill: Any, size: tuple[float, ...]) -> Tensor:
    """What each voxel is said to cost when it is filled, ``(*spatial)``."""
    if field.share:
        return field.values
    filled = fill.images(question.item, size)
    change = question.item.image - torch.stack(filled).mean(dim=0)
    return (field.map.double() * change.double()).sum(dim=0)


@register
class Infidelity(_Infidelity):
    """How far the map is from predicting what the score loses under random changes.

    E[(<I, map> - (S(x) - S(x - I)))^2]. A map that shares out the score is divided by the
    intensity it stands for, so that <I, map> is a loss of score in either case.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "score squared"
    name: Literal["infidelity"] = "infidelity"

    def score(self, field: MapField, question: Question) -> Value:
        """Mean squared error."""
        said, lost = self._pairs(field, question)
        return Value(float((said - lost).square().mean()))


@register
class InfidelityNormalized(_Infidelity):
    """Infidelity of the map at its best scale, as a share of what there is to predict.

    1 - E[ad]^2 / (E[a^2] E[d^2]) with a = <I, map> and d = S(x) - S(x - I).
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "1"
    name: Literal["infidelity_normalized"] = "infidelity_normalized"

    def score(self, field: MapField, question: Question) -> Value:
        """The share that no scale can explain."""
        said, lost = self._pairs(field, question)
        size = float(said.square().mean() * lost.square().mean())
        if size == 0:
            raise Undefined("the score, or what the map says of it, does not change")
        scale = float((said * lost).mean() / said.square().mean())
        value = 1 - float((said * lost).mean()) ** 2 / size
        return Value(min(1.0, max(0.0, value)), facts={"scale": scale})


class _OverRegions(Metric):
    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"

    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()

    def _said(self, field: MapField, question: Question, answer: SubsetDrops) -> Tensor:
        """What the map assigns to each region, ``(count,)``."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        size = (float(answer.regions.sizes.double().mean()) ** (1 / len(question.scene.shape)),)
        lost = _lost(field, question, self.fill, size * len(question.scene.shape))
        return sums(answer.regions, lost)


@register
class FaithfulnessCorrelation(_OverRegions):
    """Whether subsets to which the map assigns more cost the score more.

    Pearson correlation over random subsets of regions (Bhatt et al., 2020).
    """

    reference: ClassVar[str] = "Bhatt et al., 2020"
    name: Literal["faithfulness_correlation"] = "faithfulness_correlation"
    share: float = Field(default=0.2, gt=0, lt=1)
    draws: int = Field(default=100, ge=3)

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """One set of subsets for all maps."""
        return (RandomSubsets(self.regions, self.fill, self.share, self.draws),)

    def score(self, field: MapField, question: Question) -> Value:
        """Correlation of sums and drops."""
        answer: SubsetDrops = question.answer(self.probes(question.scene)[0], field)
        said = answer.removed.double() @ self._said(field, question, answer)
        return Value(correlation(said, answer.drops))


@register
class SensitivityN(_OverRegions):
    """Whether subsets to which the map assigns more cost the score more, over subset sizes.

    Ancona et al., 2018.
    """

    reference: ClassVar[str] = "Ancona et al., 2018"
    name: Literal["sensitivity_n"] = "sensitivity_n"
    shares: Shares = (0.05, 0.1, 0.2, 0.4, 0.8)
    draws: int = Field(default=50, ge=3)

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """One set of subsets per size."""
        return tuple(
            RandomSubsets(self.regions, self.fill, share, self.draws) for share in self.shares
        )

    def score(self, field: MapField, question: Question) -> Value:
        """Mean correlation over the sizes."""
        points = []
        for share, probe in zip(self.shares, self.probes(question.scene), strict=True):
            answer: SubsetDrops = question.answer(probe, field)
            said = answer.removed.double() @ self._said(field, question, answer)
            points.append((share, correlation(said, answer.drops)))
        return Value(sum(y for _, y in points) / len(points), tuple(points))


@register
class FaithfulnessEstimate(_OverRegions):
    """Whether regions to which the map assigns more cost the score more, one by one.

    Alvarez-Melis and Jaakkola, 2018.
    """

    reference: ClassVar[str] = "Alvarez-Melis and Jaakkola, 2018"
    name: Literal["faithfulness_estimate"] = "faithfulness_estimate"

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """Every region alone, once for all maps."""
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, question: Question) -> Value:
        """Correlation over the regions."""
        answer: SubsetDrops = question.answer(self.probes(question.scene)[0], field)
        return Value(correlation(self._said(field, question, answer), answer.drops))


@register
class NonSensitivity(_OverRegions):
    """The share of regions where only one of map and score says that they do not matter.

    Nguyen and Martínez, 2020.
    """

    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = ""
    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["non_sensitivity"] = "non_sensitivity"
    eps: float = Field(default=1e-3, gt=0, description="of the largest value")

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """Every region alone, shared with the faithfulness estimate."""
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, question: Question) -> Value:
        """Share of disagreements."""
        answer: SubsetDrops = question.answer(self.probes(question.scene)[0], field)
        said, lost = self._said(field, question, answer).abs(), answer.drops.abs()
        if float(lost.amax()) == 0:
            raise Undefined("no region changes the score")
        silent = said <= self.eps * said.amax()
        idle = lost <= self.eps * lost.amax()
        return Value(float((silent ^ idle).double().mean()))


@register
class MonotonicityCorrelation(_OverRegions):
    """Whether regions of larger magnitude change the score more when other cases fill them.

    Spearman correlation of |a_r| and E[(S(x) - S(x with r from another case))^2] (Nguyen and
    Martínez, 2020).
    """

    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["monotonicity_correlation"] = "monotonicity_correlation"
    fill: AnyFill = Case(references=10)

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """Every region alone, once per other case."""
        return (SquaredDrops(self.regions, self.fill),)

    def score(self, field: MapField, question: Question) -> Value:
        """Rank correlation over the regions."""
        answer: SubsetDrops = question.answer(self.probes(question.scene)[0], field)
        said = self._said(field, question, answer).abs()
        return Value(rank_correlation(said, answer.drops))


class SquaredDrops(SingleRegions):
    """Mean square of the drops over the images of a fill."""

    def expected(self, scene: Scene) -> int:
        """One per region and fill image."""
        return OneRegionOff(self.regions).expected(scene) * self.fill.runs(None)

    def run(self, question: Question, field: MapField) -> SubsetDrops:
        """The squares, averaged over the fill images."""
        regions = question.scene.regions(self.regions, question.item)
        masks = OneRegionOff(self.regions).masks(question.item, question.scene)
        total = torch.zeros(regions.count, dtype=torch.float64)
        painters = self.fill.painters(question.item, masks)
        for painter in painters:
            observed = question.painted(painter, len(masks))
            total += (question.whole - observed.scores).square()
        removed = torch.eye(regions.count, dtype=torch.bool)
        return SubsetDrops(regions, removed, total / len(painters))
