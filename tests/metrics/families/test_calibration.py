"""Calibration: closed forms, a second way of counting, temperatures that are found again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, optimize
from torch import Tensor, nn
from torch.nn import functional

from voxplain.image import Grid, Image
from voxplain.metrics import Case, evaluate
from voxplain.metrics.families.calibration import COLDEST
from voxplain.records.scores import Score, Scores

ONE: dict[str, Any] = {"kind": "class_score", "label": 1}
PREDICTED: dict[str, Any] = {"kind": "class_score", "label": "predicted"}


class Scored(nn.Module):
    """Class scores are the first pixels of an image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, : self.classes]


def of_voxels(output: Tensor, mask: Tensor, target: Any = ONE, **parameters: Any) -> Score:
    """The score of a dense network that returns the image."""
    image = output[None]
    metric = {"name": "calibration", **parameters}
    maps, cases = {"m": image[:, :1]}, [Case(mask=mask)]
    (row,) = evaluate(nn.Identity(), image, maps, [metric], target, cases=cases)
    return row


def of_cases(
    logits: Tensor,
    truths: Sequence[int | None],
    target: Any = PREDICTED,
    patients: Sequence[str] = (),
) -> Scores:
    """The scores of a classifier with these outputs ``(B, K)``."""
    padded = functional.pad(logits, (0, 25 - logits.shape[1])).view(-1, 1, 5, 5)
    network = Scored(logits.shape[1])
    maps = {"m": torch.rand(len(logits), 1, 5, 5)}
    cases = [
        Case(f"c{number}", patients[number] if patients else "", truth)
        for number, truth in enumerate(truths)
    ]
    return evaluate(network, padded, maps, ["calibration"], target, cases=cases)


def counted(chances: Any, there: Any, bins: int = 15) -> float:
    """The error, bin by bin."""
    chances, there = np.asarray(chances, dtype=float), np.asarray(there, dtype=float)
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (chances > low) & (chances <= high)
        if inside.any():
            total += inside.sum() * abs(chances[inside].mean() - there[inside].mean())
    return total / len(chances)


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-odds, and events that have exactly these odds."""
    source = torch.Generator().manual_seed(seed)
    odds = 2 * torch.randn(count, generator=source, dtype=torch.float64)
    return odds, torch.rand(count, generator=source, dtype=torch.float64) < odds.sigmoid()


def test_probabilities_that_match_frequencies_have_no_error() -> None:
    """Four in five at 0.8: no error. All of them: an error of 0.2."""
    output = torch.full((1, 10, 10), math.log(4.0), dtype=torch.float64)
    mask = torch.zeros(10, 10)
    mask[:8] = 1
    assert of_voxels(output, mask).value == pytest.approx(0, abs=1e-12)
    assert of_voxels(output, torch.ones(10, 10)).value == pytest.approx(0.2)
    assert of_voxels(output, torch.zeros(10, 10)).value == pytest.approx(0.8)
    score = of_voxels(output, mask)
    assert score.curve == (pytest.approx((0.8, 0.8)),)
    assert score.facts["share"] == score.facts["mean_probability"] == pytest.approx(0.8)


def test_a_margin_leaves_easy_background_out() -> None:
    """Voxels far from both objects do not count; in mm, where the size of voxels is known."""
    odds, there = drawn(400)
    output, mask = odds.view(20, 20) - 30, there.view(20, 20).clone()
    output[8:12, 8:12] += 30
    mask &= output > -10
    inside = (output > 0) | mask
    tight, whole = of_voxels(output[None], mask, margin=0), of_voxels(output[None], mask)
    expected = counted(output[inside].sigmoid(), mask[inside])
    assert tight.value == pytest.approx(expected)
    assert whole.value < tight.value / 5
    around = torch.from_numpy(ndimage.binary_dilation(inside.numpy()))
    flat = of_voxels(output[None], mask, margin=1).value
    assert flat == pytest.approx(counted(output[around].sigmoid(), mask[around]))
    scan = Image(output[None], Grid.default((20, 20), 2))
    metric = {"name": "calibration", "margin": 2}
    (volume,) = evaluate(
        nn.Identity(),
        scan,
        {"m": output[None]},
        [metric],
        ONE,
        cases=[Case(mask=mask)],
        controls=False,
    )
    assert volume.value == pytest.approx(flat)
    nothing = of_voxels(output[None] - 60, torch.zeros(20, 20), margin=1)
    assert "neither a true nor a predicted object" in nothing.reason


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_a_second_way_of_counting(bins: int) -> None:
    odds, there = drawn(400)
    score = of_voxels(1.7 * odds.view(1, 20, 20), there.view(20, 20), bins=bins)
    assert score.value == pytest.approx(counted((1.7 * odds).sigmoid(), there, bins))
    assert score.parameters["bins"] == bins


def test_bins_of_equal_mass() -> None:
    odds, there = drawn(400, 1)
    score = of_voxels(odds.view(1, 20, 20), there.view(20, 20), bins=8, binning="equal_mass")
    chances, order = odds.sigmoid(), odds.argsort()
    parts = [order[50 * n : 50 * (n + 1)] for n in range(8)]
    gaps = [abs(float(chances[p].mean() - there[p].double().mean())) for p in parts]
    assert score.value == pytest.approx(np.mean(gaps))
    assert len(score.curve) == 8


def test_equal_probabilities_share_a_bin() -> None:
    """Else the order of the voxels would decide."""
    output = torch.cat([torch.zeros(50), torch.full((50,), 2.0)]).double()
    mask = (torch.arange(100) % 50 < 25).float()
    score = of_voxels(output.view(1, 10, 10), mask.view(10, 10), bins=7, binning="equal_mass")
    expected = (0 + float(torch.tensor(2.0).sigmoid()) - 0.5) / 2
    assert score.value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("heat", [0.5, 3.0])
def test_the_temperature_of_an_overconfident_network(heat: float) -> None:
    odds, there = drawn(40_000)
    score = of_voxels(heat * odds.view(1, 200, 200), there.view(200, 200))
    assert score.facts["temperature"] == pytest.approx(heat, rel=0.05)
    assert score.facts["error_scaled"] < 0.01 < 0.05 < score.value


def test_two_classes_are_one_logit() -> None:
    odds, there = drawn(400)
    logit, mask = odds.view(1, 20, 20), there.view(20, 20)
    two = torch.cat([torch.full_like(logit, 0.3), logit + 0.3])
    alone, both = of_voxels(logit, mask), of_voxels(two, mask)
    assert alone.value == pytest.approx(both.value)
    assert alone.facts == pytest.approx(both.facts)
    probability = of_voxels(logit.sigmoid(), mask, ONE | {"activation": "none"})
    assert probability.facts == pytest.approx(alone.facts, rel=1e-4)
    shares = of_voxels(two.softmax(dim=0), mask, ONE | {"activation": "none"})
    assert shares.facts == pytest.approx(alone.facts, rel=1e-4)
    opposite = of_voxels(logit, ~mask, ONE | {"label": 0})
    assert opposite.facts["temperature"] == pytest.approx(alone.facts["temperature"])


def test_a_class_among_others() -> None:
    """Softmax over three; under sigmoid each class by itself."""
    source = torch.Generator().manual_seed(2)
    output = 3 * torch.randn(3, 20, 20, generator=source, dtype=torch.float64)
    drawn = torch.multinomial((output / 2).softmax(dim=0).flatten(1).T, 1, generator=source)
    mask = (drawn == 1).view(20, 20)
    there = mask.flatten()
    shares = output.softmax(dim=0)[1].flatten()
    assert of_voxels(output, mask).value == pytest.approx(counted(shares, there))
    own = of_voxels(output, mask, ONE | {"activation": "sigmoid"})
    assert own.value == pytest.approx(counted(output[1].sigmoid().flatten(), there))

    def loss(log: float) -> float:
        chances = (output / math.exp(log)).softmax(dim=0)[1].flatten()
        return float(functional.binary_cross_entropy(chances, there.double()))

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    temperature = of_voxels(output, mask).facts["temperature"]
    assert loss(math.log(temperature)) == pytest.approx(float(best.fun), abs=1e-6)


def test_reasons_why_voxels_have_no_calibration() -> None:
    image = torch.rand(1, 1, 6, 6)
    (without,) = evaluate(nn.Identity(), image, {"m": image}, ["calibration"], ONE)
    assert "no reference mask" in without.reason
    raw = of_voxels(3 + image[0], torch.ones(6, 6), ONE | {"activation": "none"})
    assert "not between 0 and 1" in raw.reason


def test_outputs_on_another_grid_are_compared_where_they_lie() -> None:
    """Of a coarser output, with a voxel of the mask for each cell; of a smaller one, its middle."""
    image, mask = torch.randn(1, 1, 6, 6) * 3, torch.rand(6, 6) > 0.5
    for network, cells in ((nn.AvgPool2d(2), slice(0, 6, 2)), (Middle(), slice(1, 5))):
        case = [Case(mask=mask)]
        (found,) = evaluate(network, image, {"m": image}, ["calibration"], ONE, cases=case)
        same = of_voxels(network(image)[0], mask[cells, cells])
        assert found.value == pytest.approx(same.value, abs=1e-6)


class Middle(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image[..., 1:-1, 1:-1]


def classes(count: int = 60, kinds: int = 3, seed: int = 0) -> tuple[Tensor, list[int]]:
    """Scores of a classifier that is overconfident by a factor of 2, and the true classes."""
    source = torch.Generator().manual_seed(seed)
    plain = 2 * torch.randn(count, kinds, generator=source, dtype=torch.float64)
    truths = torch.multinomial(plain.softmax(dim=1), 1, generator=source)[:, 0]
    return 2 * plain, truths.tolist()


def test_the_mean_over_cases_is_the_error_of_the_classifier() -> None:
    logits, truths = classes()
    scores = of_cases(logits, truths)
    best = logits.softmax(dim=1).max(dim=1)
    right = best.indices == torch.tensor(truths)
    expected = counted(best.values, right)
    assert np.mean(scores.values()) == pytest.approx(expected, abs=1e-6)
    assert all(row.facts["error"] == pytest.approx(expected, abs=1e-6) for row in scores)
    top = best.values > 14 / 15
    point = float(best.values[top].mean()), float(right[top].double().mean())
    assert all(row.curve[-1] == pytest.approx(point, abs=1e-6) for row in scores)
    probabilities = [row.facts["probability"] for row in scores]
    assert probabilities == pytest.approx(best.values.tolist(), abs=1e-6)
    assert [row.correct for row in scores] == right.tolist()
    of_class_one = of_cases(logits, truths, ONE)
    own = counted(logits.softmax(dim=1)[:, 1], torch.tensor(truths) == 1)
    assert np.mean(of_class_one.values()) == pytest.approx(own, abs=1e-6)


def test_the_temperature_comes_from_the_other_patients() -> None:
    logits, truths = classes(24)
    patients = [f"p{n // 2}" for n in range(24)]
    scores = of_cases(logits, truths, patients=patients)
    for row in (0, 7, 23):
        others = torch.tensor([patient != patients[row] for patient in patients])
        true = torch.tensor(truths)[others]

        def loss(log: float, logits: Tensor = logits[others], true: Tensor = true) -> float:
            return float(functional.cross_entropy(logits / math.exp(log), true))

        best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        facts = scores.rows[row].facts
        assert math.log(facts["temperature"]) == pytest.approx(float(best.x), abs=1e-3)
        scaled = (logits[row] / facts["temperature"]).softmax(dim=0).max()
        assert facts["probability_scaled"] == pytest.approx(float(scaled), abs=1e-6)
    assert scores.rows[0].facts["temperature"] == scores.rows[1].facts["temperature"]
    assert scores.rows[0].facts["temperature"] != scores.rows[2].facts["temperature"]


def test_scaling_helps_an_overconfident_classifier() -> None:
    (row, *others) = of_cases(*classes(400))
    assert row.facts["temperature"] == pytest.approx(2, rel=0.15)
    assert row.facts["error_scaled"] < 0.6 * row.facts["error"]
    assert len(others) == 399


@pytest.mark.parametrize("label", [0, 1])
def test_a_classifier_of_one_logit_is_one_of_two_classes(label: int) -> None:
    logits, truths = classes(40, 2)
    target = ONE | {"label": label}
    double = of_cases(logits, truths, target)
    single = of_cases(logits[:, 1:] - logits[:, :1], truths, target)
    assert single.values() == pytest.approx(double.values(), abs=1e-6)
    for row, row_of_two in zip(single, double, strict=True):
        assert row.facts["temperature"] == pytest.approx(row_of_two.facts["temperature"], rel=1e-3)


def test_classes_that_do_not_exclude_each_other() -> None:
    logits, truths = classes(40)
    scores = of_cases(logits, truths, ONE | {"activation": "sigmoid"})
    own = counted(logits[:, 1].sigmoid(), torch.tensor(truths) == 1)
    assert np.mean(scores.values()) == pytest.approx(own, abs=1e-6)


def test_a_classifier_that_is_always_right_has_the_coldest_temperature() -> None:
    logits = torch.tensor([[3.0, 0], [0, 3], [3, 0], [0, 3]])
    for row in of_cases(logits, [0, 1, 0, 1]):
        assert row.facts["temperature"] == pytest.approx(COLDEST, rel=0.01)
        assert row.value == pytest.approx(1 - float(torch.tensor(3.0).sigmoid()), abs=1e-6)


def test_others_that_are_all_right_make_no_case_certain() -> None:
    """The scaled probability of the wrong one would be 100 %, because the others are right."""
    logits = torch.tensor([[3.0, 0], [0, 3], [3, 0], [1, 0]])
    *right, wrong = of_cases(logits, [0, 1, 0, 1])
    assert wrong.facts["probability"] == pytest.approx(float(torch.tensor(1.0).sigmoid()))
    assert "probability_scaled" not in wrong.facts
    assert all("probability_scaled" in row.facts for row in right)


def test_one_row_per_image_whatever_the_maps() -> None:
    logits, truths = classes(5)
    scores = of_cases(logits, truths)
    assert [row.method for row in scores] == [""] * 5
    assert [row.case for row in scores] == [f"c{n}" for n in range(5)]
    assert not any(row.control for row in scores)
    assert {row.direction for row in scores} == {"down"}


def test_cases_without_a_truth_say_so_and_do_not_count() -> None:
    logits, truths = classes(6)
    scores = of_cases(logits, [*truths[:3], None, None, 7])
    kept = of_cases(logits[:3], truths[:3])
    assert scores.values()[:3] == pytest.approx(kept.values())
    assert [row.correct for row in scores][3:] == [None, None, False]
    assert "the true class of the image is not known" in scores.rows[3].reason
    assert "the true class is 7, and the output has classes 0 to 2" in scores.rows[5].reason
    (alone,) = of_cases(logits[:1], truths[:1])
    assert "other patients" in alone.reason


@pytest.mark.parametrize("spacing", [(2.0, 2.0), (1.0, 3.0)])
def test_a_margin_is_in_mm_also_where_cells_are_larger_than_voxels(
    spacing: tuple[float, float],
) -> None:
    """A network that averages 2 by 2 is the coarse one, on voxels of half the size."""
    odds, there = drawn(400)
    coarse, mask = odds.view(1, 20, 20) - 4, there.view(20, 20) & (odds > 3).view(20, 20)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    large = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    found = []
    for image, reference, network, size in (
        (coarse, mask, nn.Identity(), [2 * side for side in spacing]),
        (fine, large, nn.AvgPool2d(2), spacing),
    ):
        scan = Image(image, Grid.default(tuple(image.shape[1:]), size))
        metric = {"name": "calibration", "margin": 6.0}
        cases = [Case(mask=reference)]
        (row,) = evaluate(network, scan, {"m": image}, [metric], ONE, cases=cases, controls=False)
        found.append((row.value, row.facts["share"]))
    assert found[0] == pytest.approx(found[1])
    assert found[0][1] > 2 * float(mask.double().mean())  # the margin leaves something out
