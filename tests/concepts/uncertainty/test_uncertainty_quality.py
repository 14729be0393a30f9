"""Whether uncertainty finds errors: rankings, calibration and kept voxels in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from voxplain.concepts.uncertainty import uncertainty
from voxplain.concepts.uncertainty.quality import THRESHOLDS, ComparedPrediction, quality_of
from voxplain.grid import Grid
from voxplain.image import Image


def compared(count: int = 400, seed: int = 0) -> ComparedPrediction:
    torch.manual_seed(seed)
    uncertain = torch.rand(count, dtype=torch.float64)
    wrong = torch.rand(count, dtype=torch.float64) < uncertain
    predicted = torch.rand(1, count) > 0.6
    return ComparedPrediction(
        uncertainties={"total": uncertain, "epistemic": (10 * uncertain).round()},
        confidence=1 - uncertain,
        confirmed=~wrong,
        wrong=wrong,
        predicted=predicted,
        true=predicted ^ wrong,
    )


def test_rankings_are_those_of_a_reference_library() -> None:
    found, given = quality_of(compared()), compared()
    for kind, values in given.uncertainties.items():
        wrong, scores = given.wrong.numpy(), values.numpy()
        assert found.rankings[kind].roc_auc == pytest.approx(roc_auc_score(wrong, scores))
        assert found.rankings[kind].auprc == pytest.approx(average_precision_score(wrong, scores))
    assert found.rankings["total"].chance == found.error_share == float(given.wrong.double().mean())


def test_what_is_kept_is_counted_at_every_threshold() -> None:
    given, found = compared(), quality_of(compared())
    assert len(found.kept) == THRESHOLDS
    for point in found.kept:
        kept = given.uncertainties["total"] <= point.threshold
        assert point.share == pytest.approx(float(kept.double().mean()))
        if not bool(kept.any()):
            assert point.accuracy is None
            continue
        assert point.accuracy == pytest.approx(float((~given.wrong[kept]).double().mean()))
        first, second = given.predicted[0, kept], given.true[0, kept]
        size = float(first.sum() + second.sum())
        dice = 2 * float((first & second).sum()) / size if size else None
        assert point.dice == (None if dice is None else pytest.approx(dice))
    assert found.kept[-1].share == 1


def test_a_calibrated_network_has_no_calibration_error() -> None:
    found = quality_of(compared(200_000))
    assert found.calibration_error < 0.01
    assert found.adaptive_error < 0.01
    overconfident = compared(20_000)
    sure = ComparedPrediction(
        **{**vars(overconfident), "confidence": torch.ones(20_000, dtype=torch.float64)}
    )
    assert quality_of(sure).calibration_error == pytest.approx(found.error_share, abs=0.02)


def test_without_errors_there_is_nothing_to_rank() -> None:
    given = compared()
    right = ComparedPrediction(**{**vars(given), "wrong": torch.zeros_like(given.wrong)})
    found = quality_of(right)
    assert found.rankings["total"].auprc is None
    assert "nothing to rank" in found.remarks[0]


class Levels(nn.Module):
    """Scores that are the channels of the image."""

    def forward(self, image: Tensor) -> Tensor:
        return image


@pytest.mark.parametrize("rank", [2, 3])
def test_errors_are_those_of_the_reference(rank: int) -> None:
    torch.manual_seed(0)
    shape = (9, 8, 7)[:rank]
    image = Image(torch.randn(3, *shape), Grid.default(shape, 1.0))
    labels = image.data.argmax(0)
    labels[:3] = (labels[:3] + 1) % 3
    found = uncertainty(Levels(), image, samples=4, reference=labels, roi="all")
    quality = found.quality
    assert quality is not None
    counted = found.count > 0
    predicted = found.probability.argmax(0)
    assert quality.voxels == int(counted.sum())
    assert quality.error_share == pytest.approx(
        float((predicted != labels)[counted].double().mean())
    )
    dice = [
        2 * int(((predicted == k) & (labels == k) & counted).sum())
        / int(((predicted == k) & counted).sum() + ((labels == k) & counted).sum())
        for k in (1, 2)
    ]  # fmt: skip
    assert quality.kept[-1].dice == pytest.approx(float(np.mean(dice)))
    assert quality.kept[-1].by_class == pytest.approx({"class 1": dice[0], "class 2": dice[1]})


def test_one_class_is_judged_by_its_label_and_some_voxels_are_left_out() -> None:
    torch.manual_seed(0)
    image = Image(torch.randn(3, 9, 8), Grid.default((9, 8), 1.0))
    labels = torch.where(image.data.argmax(0) == 2, 4, 0)
    labels[0] = 9
    found = uncertainty(
        Levels(), image, samples=4, reference=labels, label=2, value=4, ignore=9, roi="all"
    )
    quality = found.quality
    assert quality is not None
    counted = (found.count > 0) & (labels != 9)
    assert quality.voxels == int(counted.sum())
    wrong = (found.probability.argmax(0) == 2) != (labels == 4)
    assert quality.error_share == pytest.approx(float(wrong[counted].double().mean()))


def test_classes_that_overlap_have_a_mask_each() -> None:
    torch.manual_seed(0)
    image = Image(torch.randn(2, 9, 8), Grid.default((9, 8), 1.0))
    masks = image.data > 0
    found = uncertainty(
        Levels(), image, samples=4, reference=masks, activation="sigmoid", roi="all"
    )
    assert found.quality is not None
    wrong = ((found.probability > 0.5) != masks).any(0)[found.count > 0]
    assert found.quality.error_share == pytest.approx(float(wrong.double().mean()))
