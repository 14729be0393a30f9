"""The best unit per slice, at a threshold of the slice itself."""

from __future__ import annotations

import pytest
import torch
from phantom_cohort import Planted, bank, boxes

from voxplain.concepts.dissection import best_per_slice
from voxplain.engine.cohort import Cohort
from voxplain.errors import ConfigError


def test_the_planted_unit_is_best_in_every_slice_that_shows_its_concept() -> None:
    cohort, network = boxes(3, rank=3), Planted(3).eval()
    shares = [round(number / 100, 2) for number in range(1, 60)]
    found = best_per_slice(network, cohort, bank(), quantiles=shares, region="image")
    both = [each for each in found if each.concept == "both"]
    expected = []
    for case in cohort:
        assert case.labels is not None
        sizes = (case.labels == 3).sum((0, 1)).tolist()
        expected += [(case.id, number, size) for number, size in enumerate(sizes) if size]
    assert [(each.case, each.slice, each.voxels) for each in both] == expected
    assert {each.unit for each in both} == {"act/0"}
    assert min(each.iou for each in both) == pytest.approx(1)


def test_an_image_is_one_slice_and_equals_its_definition() -> None:
    cohort, network = boxes(1), Planted().eval()
    (found,) = best_per_slice(network, cohort, bank().only(["first"]), quantiles=[0.1])
    case = cohort["case0"]
    inside = case.image.data.amax(0) > 0
    values, truth = case.image.data[0][inside], (case.image.data[0] > 0)[inside]
    threshold = values.sort(descending=True).values[round(0.1 * len(values)) - 1]
    is_on = values >= threshold
    assert found.iou == pytest.approx(float((is_on & truth).sum() / (is_on | truth).sum()))
    assert (found.slice, found.quantile, found.voxels) == (None, 0.1, int(truth.sum()))


def test_what_is_on_everywhere_is_no_detector() -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage = torch.nn.Conv2d(2, 2, 1)
            torch.nn.init.zeros_(self.stage.weight)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.stage(image)

    cohort: Cohort = boxes(2)
    found = best_per_slice(Constant().eval(), cohort, bank(), ["stage"])
    assert {each.iou for each in found} == {0.0}
    with pytest.raises(ConfigError, match="shares between 0 and 1"):
        best_per_slice(Constant().eval(), cohort, bank(), ["stage"], quantiles=[1.5])
