"""Uncertainty over the cases of a cohort: segmentations and classifiers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from voxplain.concepts.uncertainty import Augmentation, uncertainty, uncertainty_over_cases
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import InputError
from voxplain.grid import Grid
from voxplain.image import Image

NOISE = Augmentation(flips=(), rotation=0, shift=0, intensity=0, noise=0.2)


class Channels(nn.Module):
    """Scores that are the channels of the image, or their means."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, image: Tensor) -> Tensor:
        return 3 * image if self.dense else 3 * image.flatten(2).mean(2)


def case(number: int, dense: bool) -> CohortCase:
    torch.manual_seed(number)
    data = torch.randn(2, 10, 9)
    if not dense:
        data = 0.3 * data + torch.randn(2, 1, 1)
    image = Image(data, Grid.default((10, 9), 1.0))
    noisy = data + 0.5 * torch.randn_like(data)
    facts = {"class": float(noisy.flatten(1).mean(1).argmax())}
    if not dense and number % 4 == 0:
        facts = {"class": 1 - facts["class"]}
    labels = noisy.argmax(0) if dense else None
    return CohortCase(f"c{number}", f"p{number // 2}", image, labels, facts)


def test_segmentations_are_judged_case_by_case_and_summed_up_over_patients() -> None:
    cohort = Cohort.of([case(number, True) for number in range(18)])
    kept: list[str] = []
    found = uncertainty_over_cases(
        Channels(True), cohort, NOISE, 4, keep=lambda one, _: kept.append(one.id)
    )
    assert kept == list(cohort.ids) == [record.case for record in found.cases]
    alone = uncertainty(Channels(True), cohort["c3"].image, NOISE, 4, reference=cohort["c3"].labels)
    assert found.cases[3].quality == alone.quality
    summary = found.summaries["roc_auc_total"]
    values = [record.quality.rankings["total"].roc_auc for record in found.cases]  # type: ignore[union-attr]
    assert summary.mean == pytest.approx(sum(values) / 18)
    assert (summary.patients, summary.count) == (9, 18)
    assert summary.interval is not None
    assert summary.interval[0] < (summary.mean or 0) < summary.interval[1]
    assert (summary.mean or 0) > 0.7  # errors lie where the channels are close
    assert found.pooled is None
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_classifiers_are_judged_over_the_cases_together() -> None:
    cohort = Cohort.of([case(number, False) for number in range(24)])
    found = uncertainty_over_cases(Channels(False), cohort, NOISE, 4)
    assert found.pooled is not None
    assert found.pooled.voxels == 24
    assert 0 < found.pooled.error_share < 1
    interval = found.intervals["roc_auc_total"]
    assert interval is not None
    assert interval[0] <= (found.pooled.rankings["total"].roc_auc or 0) <= interval[1]


def test_cases_without_reference_are_not_judged_and_it_is_said() -> None:
    cases = [case(number, True) for number in range(3)]
    bare = CohortCase("x", "x", cases[0].image)
    found = uncertainty_over_cases(Channels(True), Cohort.of([*cases, bare]), NOISE, 3)
    assert found.remarks == ["1 of 4 cases have no reference and are not judged"]
    assert found.summaries["roc_auc_total"].interval is None  # three patients
    with pytest.raises(InputError, match="holds no case"):
        uncertainty_over_cases(Channels(True), Cohort.of([]), NOISE, 3)
