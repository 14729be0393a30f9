"""What an output holds that targets are made for, counted by hand on small outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.models.output_place import OutputPlace
from voxplain.study.config.for_each import ForEach
from voxplain.study.config.prediction_parts import parse_for_each
from voxplain.targets import ClassScore, ErrorRegion, Label, Region, UnperturbedOutput


def seen(output: Tensor, stride: float = 1, volume: float | None = 2.0) -> UnperturbedOutput:
    """An output ``(K, *spatial)`` whose cells have this many voxels along each axis."""
    cells = tuple(output.shape[1:])
    shape = tuple(int(size * stride) for size in cells)
    place = OutputPlace((0.0,) * len(cells), (float(stride),) * len(cells), cells, shape)
    return UnperturbedOutput(
        output[None], input_shape=shape, voxel_volume=volume, place=place if cells else None
    )


def chosen(written: dict[str, Any], output: UnperturbedOutput) -> list[int]:
    each: ForEach = parse_for_each(written)
    return each.chosen(each.candidates(output))


def logits(classes: Tensor, count: int = 3) -> Tensor:
    return 5 * torch.nn.functional.one_hot(classes, count).movedim(-1, 0).float()


CLASSES = torch.tensor(
    [
        [1, 1, 0, 0, 1, 0, 2],
        [0, 0, 1, 0, 0, 0, 2],
        [0, 0, 0, 0, 1, 1, 2],
    ]
)
"""Class 1 has components of 3 (diagonals connect), 1 and 2 pixels; class 2 one of 3."""

LESION = {"for_each": "component", "label": 1}


def test_components_of_a_picture_from_the_largest_to_the_smallest() -> None:
    output = seen(logits(CLASSES))
    each = parse_for_each(LESION)
    found = each.candidates(output)
    assert found.sizes == {1: 3, 2: 2, 3: 1}
    assert (found.volume, found.axes) == (2.0, 2)
    sums = [each.target(number).bind(output).terms[0].weights.sum() for number in (1, 2, 3)]
    assert sums == [3, 2, 1]
    assert chosen({**LESION, "min_size": 2}, output) == [1, 2]
    assert chosen({**LESION, "min_size": "6mm2"}, output) == [1]
    assert chosen({**LESION, "min_size": "0.04cm2"}, output) == [1, 2]
    assert chosen({**LESION, "min_size": 2, "max_count": 1}, output) == [1]


def test_a_position_of_a_coarse_output_is_several_voxels_large() -> None:
    output = seen(logits(CLASSES), stride=2)
    assert chosen({**LESION, "min_size": "24mm2"}, output) == [1]  # 3 cells of 4 pixels of 2 mm²
    assert chosen({**LESION, "min_size": "24.1mm2"}, output) == []
    assert chosen({**LESION, "min_size": "3 pixels"}, output) == [1]


def test_sizes_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(TargetError, match="size of a voxel in mm is not known"):
        chosen({**LESION, "min_size": "5mm2"}, seen(logits(CLASSES), volume=None))
    with pytest.raises(TargetError, match="min_size 5mm3 does not fit an output of 2 axes"):
        chosen({**LESION, "min_size": "5mm3"}, seen(logits(CLASSES)))
    with pytest.raises(TargetError, match="needs a dense output"):
        chosen(LESION, seen(torch.tensor([0.1, 2.0, 3.0])))
    with pytest.raises(TargetError, match="for networks with a dense output"):
        chosen({"for_each": "class", "min_size": 2}, seen(torch.tensor([0.1, 2.0, 3.0])))


def test_components_of_errors() -> None:
    truth = (CLASSES == 1).long()
    truth[0, 4], truth[2, 0:2], truth[0, 3] = 0, 1, 1
    region = ErrorRegion(label=1, reference=truth.numpy(), error="fp")
    assert region.component_sizes(seen(logits(CLASSES))) == [1]
    region = region.model_copy(update={"error": "fn"})
    assert region.component_sizes(seen(logits(CLASSES))) == [2, 1]
    one = region.model_copy(update={"component": 2})
    weights = one.bind(seen(logits(CLASSES))).terms[0].weights[0, 1]
    assert weights.nonzero().tolist() == [[0, 3]]
    with pytest.raises(TargetError, match="missed as 2 connected components; there is no number 3"):
        region.model_copy(update={"component": 3}).bind(seen(logits(CLASSES)))


def test_names_for_files_tell_the_parts_and_what_is_stated() -> None:
    assert Region(label=1, component=2).slug == "1_component-2"
    assert Region(label=1, component=2, link="log_odds").slug == "1_component-2_link-log_odds"
    assert ErrorRegion(label=3, reference="reference", error="fn", component=1).slug == "3_fn-1"
    with_value = ErrorRegion(label=3, reference="x/y.nii", value=2, component=1).slug
    assert with_value.startswith("3_fp-1_reference-")
    assert with_value.endswith("_value-2")
    assert "component" not in ErrorRegion(label=1, reference="reference").model_dump()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"for_each": "class", "kind": "volume"}, [1, 2]),
        ({"for_each": "predicted_class"}, [1, 2]),
        ({"for_each": "predicted_class", "max_count": 1}, [1]),
        ({"for_each": "predicted_class", "min_size": 4}, [1]),
        ({"for_each": "class", "kind": "volume", "activation": "sigmoid"}, [0, 1, 2]),
    ],
)
def test_classes_of_a_dense_output(written: dict[str, Any], expected: list[int]) -> None:
    assert chosen(written, seen(logits(CLASSES))) == expected


def test_classes_that_are_predicted_nowhere_are_left_out_with_the_reason() -> None:
    each = parse_for_each({"for_each": "class"})
    found = each.candidates(seen(logits(CLASSES, 4)))
    assert each.chosen(found) == [1, 2]
    assert each.left_out(found).startswith("number 3 (class 3 is predicted nowhere; predicted are")


@pytest.mark.parametrize(
    ("scores", "written", "expected"),
    [
        ([1.0, 3.0, 2.0], {"for_each": "class"}, [0, 1, 2]),
        ([1.0, 3.0, 2.0], {"for_each": "class", "max_count": 2}, [1, 2]),
        ([1.0, 3.0, 2.0], {"for_each": "predicted_class"}, [1]),
        ([1.0, -3.0, 2.0], {"for_each": "predicted_class", "activation": "sigmoid"}, [0, 2]),
        ([0.9], {"for_each": "predicted_class"}, [1]),
        ([-4.0], {"for_each": "predicted_class"}, [0]),
        ([-4.0], {"for_each": "class"}, [1]),
    ],
)
def test_classes_of_a_classifier(
    scores: list[float], written: dict[str, Any], expected: list[int]
) -> None:
    output = UnperturbedOutput(torch.tensor([scores]), squashed=False)
    assert chosen(written, output) == expected


def test_the_targets_are_those_that_a_study_could_name() -> None:
    assert parse_for_each({"for_each": "class"}).target(2) == Label(label=2)
    each = parse_for_each({"for_each": "class", "kind": "class_score", "link": "log_odds"})
    assert each.target(1) == ClassScore(label=1, link="log_odds")
    assert parse_for_each({**LESION, "threshold": 0.3}).target(4) == Region(
        label=1, component=4, threshold=0.3
    )
