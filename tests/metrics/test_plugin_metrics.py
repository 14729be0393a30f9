"""Metrics of another package, which imports all it needs from voxplain.metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from metric_cases import CLASS_ONE, LinearClasses, bright
from torch import Tensor, nn

from voxplain.metrics import Case, Scores, evaluate, metric_key, metrics, parse_metric
from voxplain.study import Study

PLUGIN = '''\
"""Three metrics, as a package beside voxplain would bring them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from voxplain.metrics import (
    CaseSummary,
    Context,
    CrossCaseMetric,
    Direction,
    MapField,
    Metric,
    MetricContext,
    NetworkMetric,
    Query,
    Undefined,
    Value,
    register,
    to_compare,
)


@register
class BrightEvidence(Metric):
    """The share of the positive evidence on voxels brighter than the mean of the image."""

    family: ClassVar[str] = "localization"
    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    name: Literal["bright_evidence"] = "bright_evidence"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        if not bool(field.positive.any()):
            raise Undefined("the map has no positive value")
        intensities = context.input.image.double().sum(dim=0)
        inside = intensities > intensities.mean()
        return Value(float(field.positive[inside].sum() / field.positive.sum()))


@dataclass(frozen=True)
class DimmedScore(Query):
    """S of the image at a share of its intensity."""

    share: float

    def cost(self, context: Context) -> int:
        return 1

    def run(self, context: MetricContext) -> float:
        return float(context.predict(self.share * context.input.image[None]).scores)


@register
class DimmingLoss(NetworkMetric):
    """How much the score drops when the image is dimmed; a score of the network, not of a map."""

    family: ClassVar[str] = "dimming"
    direction: ClassVar[Direction] = "down"
    unit: ClassVar[str] = "score"
    name: Literal["dimming_loss"] = "dimming_loss"
    share: float = Field(default=0.5, gt=0, lt=1, description="of the intensity that is left")

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (DimmedScore(self.share),)

    def score(self, context: MetricContext) -> Value:
        return Value(context.score - context.run_query(DimmedScore(self.share)))


@register
class EvidenceRank(CrossCaseMetric, Metric):
    """The rank of the case by the sum of its map, from 1."""

    family: ClassVar[str] = "dimming"
    direction: ClassVar[Direction] = "none"
    name: Literal["evidence_rank"] = "evidence_rank"

    def score(self, field: MapField, context: MetricContext) -> Value:
        return to_compare({"sum": float(field.values.sum())})

    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        sums = [case.summary["sum"] for case in cases]
        return [Value(1 + sum(other > own for other in sums)) for own in sums]
'''
NAMES = ("bright_evidence", "dimming_loss", "evidence_rank")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is installed while a test runs, with an entry point for its metrics."""
    (tmp_path / "dimming_metrics.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(metrics, "_entries", dict(metrics._entries))
    monkeypatch.setattr(metrics, "_plugins_loaded", False)
    points = [EntryPoint("dimming", "dimming_metrics", "voxplain.metrics")]
    monkeypatch.setattr("voxplain.registry.entry_points", lambda group: points)
    yield
    sys.modules.pop("dimming_metrics", None)


def scores(network: nn.Module, images: Tensor, maps: Tensor, *names: str) -> Scores:
    """Without controls; images of two patients."""
    cases = [Case(f"c{number}", patient=f"p{number}") for number in range(len(images))]
    return evaluate(
        network, images, {"mine": maps}, list(names), CLASS_ONE, cases=cases, controls=False
    )


def test_the_door_has_all_that_a_metric_needs() -> None:
    """The example imports voxplain.metrics and no module within."""
    lines = [line for line in PLUGIN.splitlines() if "voxplain" in line and "import" in line]
    assert lines == ["from voxplain.metrics import ("]
    assert {*NAMES} <= {*metrics}


def test_a_metric_of_a_map_by_hand() -> None:
    image = torch.tensor([[[1.0, 1.0], [2.0, 4.0]]], dtype=torch.float64)
    maps = torch.tensor([[[1.0, -5.0], [2.0, 1.0]]], dtype=torch.float64)
    (row,) = scores(LinearClasses((1, 2, 2)), image[None], maps[None], "bright_evidence")
    assert row.value == pytest.approx(1 / 4)  # 4 alone is brighter than the mean of 2
    assert (row.method, row.family, row.case) == ("mine", "localization", "c0")
    (row,) = scores(LinearClasses((1, 2, 2)), image[None], -maps[None].abs(), "bright_evidence")
    assert row.reason == "the map has no positive value"


def test_a_metric_of_the_network_has_one_row_and_shares_its_query() -> None:
    network, image = LinearClasses((1, 6, 6)), bright(2, 1, 6)
    maps = torch.rand(1, 1, 6, 6)
    first, second = scores(network, image[None], maps, "dimming_loss", "dimming_loss")
    weight = network.weight.detach()[1]
    assert first.value == pytest.approx(0.5 * float((weight * image).sum()))
    assert (first.method, first.unit, first.passes) == ("", "score", 1)
    assert (second.value, second.passes) == (first.value, 0)


def test_a_cross_case_metric_is_completed_from_all_cases() -> None:
    images = torch.stack([bright(2, 1, 6, seed) for seed in range(3)])
    maps = torch.arange(3.0)[:, None, None, None] * torch.rand(3, 1, 6, 6)
    assert scores(LinearClasses((1, 6, 6)), images, maps, "evidence_rank").values() == [3, 2, 1]


def test_a_study_names_it_with_its_parameters() -> None:
    spec = {"name": "dimming_loss", "share": 0.25}
    study = Study.parse(
        {
            "cases": [{"image": "scan.nii.gz"}],
            "models": [{"name": "net", "factory": "nets:build"}],
            "target": 1,
            "methods": ["saliency"],
            "metrics": [spec, "bright_evidence"],
        }
    )
    assert [metric_key(metric) for metric in study.metrics] == [
        "dimming_loss, share 0.25",
        "bright_evidence",
    ]
    assert study.metrics[0] == parse_metric(spec)
