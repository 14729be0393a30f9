"""How a network is dissected; a study states the same."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from voxplain.concepts.dissection.agreement import Threshold


class DissectionSettings(BaseModel):
    """Settings of a dissection.

    Attributes:
        layers: Paths of layers; all convolutional stages, after the activation, if empty.
        threshold: From which activation on a unit counts as on; chosen on other patients than
            those that scores are of. ``max_iou`` and ``max_information`` choose it for each
            concept, ``fixed_quantile`` takes one for each unit.
        quantile: Share of the region in which a unit is on, for ``fixed_quantile``.
        region: ``foreground``, ``image``, or the name of a concept of the bank.
        smallest_iou: What the lower end of the interval of a detector must exceed in any case.
        held_out: Share of the patients that scores are of.
        level: Bound on the share of false detectors.
        draws: Unrelated masks per concept.
        exemplars: Cases kept per unit at both ends.
        seed: Of the split and all draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[str, ...] = ()
    threshold: Threshold = "max_iou"
    quantile: float = Field(default=0.005, gt=0, lt=1)
    region: str = "foreground"
    smallest_iou: float = Field(default=0.04, ge=0, lt=1)
    held_out: float = Field(default=0.5, gt=0, lt=1)
    level: float = Field(default=0.05, gt=0, lt=1)
    draws: int = Field(default=100, ge=1, le=10_000)
    exemplars: int = Field(default=5, ge=0, le=100)
    seed: int = 0
