"""Targets with a place: errors where it does not exist, masks from files, and follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from networks import images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import ConfigError, TargetError
from voxplain.image import Grid, Image
from voxplain.models.output_place import OutputPlace
from voxplain.preprocess import apply
from voxplain.targets import ErrorRegion, Label, Pixelwise, Region, UnperturbedOutput, WeightField

SHAPE = (6, 7, 5)
every_rank = pytest.mark.parametrize("rank", [2, 3])


def dense(rank: int, classes: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, classes, *SHAPE[:rank], dtype=torch.float64)


def weights(field: WeightField) -> Tensor:
    (term,) = field.terms
    return term.weights


class TestSentences:
    def test_absent_class_names_the_present_ones(self) -> None:
        output = dense(3)
        output[1, 2] = -50
        with pytest.raises(
            TargetError,
            match=r"image 1: class 2 is predicted nowhere; predicted are: 0 \(\d+ voxels\), 1 \(",
        ):
            Pixelwise(label=2).bind(output)
        with pytest.raises(TargetError, match=r"^class 2 is predicted nowhere; .*0 \(\d+ pixels\)"):
            Label(label=2).bind(torch.cat([dense(2, 2), torch.full((2, 1, 6, 7), -9.0)], 1)[:1])

    def test_one_channel_below_its_threshold(self) -> None:
        output = dense(2, 1, 1)
        with pytest.raises(
            TargetError, match=r"class 1 is predicted nowhere; predicted are: 0 \(42"
        ):
            Pixelwise(label=1, threshold=0.99999).bind(output)

    def test_one_channel_above_its_threshold(self) -> None:
        with pytest.raises(
            TargetError, match=r"class 0 is predicted nowhere; predicted are: 1 \(42 pixels\)"
        ):
            Pixelwise(label=0, threshold=0.00001).bind(dense(2, 1, 1))

    def test_wrong_labels(self) -> None:
        with pytest.raises(TargetError, match="class 3 does not exist; the output has 0 to 2"):
            Pixelwise(label=3).bind(dense(2))

    def test_scores_are_not_dense(self) -> None:
        with pytest.raises(
            TargetError, match="pixelwise needs a dense output, and this network giv"
        ):
            Pixelwise(label=1).bind(torch.randn(2, 3))

    def test_a_case_without_such_an_error(self) -> None:
        output = dense(2)
        truth = output.argmax(1) == 1
        for error, word in (("fp", "falsely predicted"), ("fn", "missed")):
            with pytest.raises(TargetError, match=f"class 1 has no {word} pixel to explain"):
                ErrorRegion(label=1, reference=truth[:1], error=error).bind(output[:1])

    def test_component_that_is_not_there(self) -> None:
        output = torch.zeros(1, 2, 5, 5)
        output[0, 1, 1, 1] = 4
        with pytest.raises(
            TargetError, match="predicted as 1 connected components; there is no num"
        ):
            Region(label=1, component=2).bind(output)
        output[:, 1] = -1
        with pytest.raises(TargetError, match="class 1 is predicted nowhere; there is no number 1"):
            Region(label=1, component=1).bind(output)

    @pytest.mark.parametrize(
        "box", [((0, 7), (0, 2)), ((2, 2), (0, 2)), ((0, 2),), ((-1, 2), (0, 1))]
    )
    def test_boxes_outside(self, box: Any) -> None:
        with pytest.raises(TargetError, match=r"does not lie inside an output of shape \(6, 7\)"):
            Region(label=1, box=box).bind(dense(2))

    def test_empty_mask(self) -> None:
        with pytest.raises(
            TargetError, match="selects nothing, so its score is 0 whatever the imag"
        ):
            Region(label=1, mask=torch.zeros(6, 7)).bind(dense(2))

    def test_masks_of_another_shape(self) -> None:
        with pytest.raises(
            TargetError, match=r"a mask of shape \(3, 3\) fits neither the output \(6"
        ):
            Region(label=1, mask=torch.ones(3, 3)).bind(dense(2))
        with pytest.raises(TargetError, match="3 masks for 2 images"):
            Region(label=1, mask=torch.ones(3, 6, 7)).bind(dense(2))

    def test_a_file_needs_a_grid(self) -> None:
        with pytest.raises(TargetError, match="a mask file needs an image on its grid"):
            Region(label=1, mask="lesion.nii.gz").bind(dense(3))

    @pytest.mark.parametrize("given", [{}, {"voxel": (1, 1), "component": 1}])
    def test_exactly_one_region(self, given: dict[str, Any]) -> None:
        from voxplain.targets import parse_target

        with pytest.raises(ConfigError, match="takes exactly one of mask, box, component, voxel"):
            parse_target({"kind": "region", "label": 1, **given})

    def test_nan(self) -> None:
        output = dense(3)
        output[0, 0, 0, 0, 0] = float("nan")
        with pytest.raises(TargetError, match="the output of the network holds 1 NaN or infinite"):
            Pixelwise(label=1).bind(output)


def test_masks_on_the_input_grid_are_brought_to_a_coarser_output() -> None:
    mask = torch.zeros(12, 14, dtype=torch.bool)
    mask[4:8, 2:6] = True
    place = OutputPlace((0.5, 0.5), (2, 2), (6, 7), (12, 14))
    seen = UnperturbedOutput(dense(2), input_shape=(12, 14), place=place)
    found = weights(Region(label=1, mask=mask).bind(seen))[:, 1]
    expected = torch.zeros(6, 7)
    expected[2:4, 1:3] = 1
    assert torch.equal(found, expected.double().expand(2, 6, 7))
    with pytest.raises(TargetError, match="the geometry of this network is unknown"):
        Region(label=1, mask=mask).bind(replace(seen, place=None))


class TestFiles:
    """A mask on the grid of the scan, through the preprocessing of the image."""

    AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -8], [0, 0, 3.0, 4], [0, 0, 0, 1]])

    def image(self) -> Image:
        source = torch.rand(1, 12, 10, 8) + 0.1
        return Image(source, Grid((12, 10, 8), self.AFFINE))

    def saved(self, folder: Path, labels: np.ndarray) -> Path:
        path = folder / "lesion.nii.gz"
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), self.AFFINE), path)
        return path

    def test_crop_and_reorientation(self, tmp_path: Path) -> None:
        labels = np.zeros((12, 10, 8))
        labels[4:7, 3:6, 2:5] = 2
        labels[0, 0, 0] = 1
        path = self.saved(tmp_path, labels)
        steps = [
            {"kind": "reorient", "axes": "RAS"},
            {"kind": "crop", "start": [1, 2, 1], "shape": [8, 9, 6]},
        ]
        image = apply(self.image(), steps)
        network = segmenter(3)
        for value in (None, 2):
            selected = weights(
                Region(label=1, mask=str(path), value=value).bind(network(image.data[None]), image)
            )[0, 1]
            expected = image.project(torch.from_numpy(labels)) == 2
            assert expected.sum() == 27
            assert torch.equal(selected != 0, expected)

    def test_error_region_from_a_file(self, tmp_path: Path) -> None:
        labels = np.zeros((12, 10, 8))
        labels[2:9, 2:8, 1:7] = 1
        path = self.saved(tmp_path, labels)
        image = apply(self.image(), [{"kind": "reorient", "axes": "LPS"}])
        network = segmenter(3)
        with torch.no_grad():
            output = network(image.data[None])
        of_class, truth = output[0].argmax(0) == 1, image.project(torch.from_numpy(labels)) == 1
        for error, expected in (("fp", of_class & ~truth), ("fn", truth & ~of_class)):
            if expected.any():
                target = ErrorRegion(label=1, reference=path, error=error)
                assert torch.equal(weights(target.bind(output, image))[0, 1] != 0, expected)

    def test_through_explain(self, tmp_path: Path) -> None:
        labels = np.zeros((12, 10, 8))
        labels[4:7, 3:6, 2:5] = 1
        path = self.saved(tmp_path, labels)
        image, network = self.image(), segmenter(3)
        from_file = explain(
            network, image, "saliency", {"kind": "region", "label": 1, "mask": path}
        )
        from_array = explain(
            network, image, "saliency", {"kind": "region", "label": 1, "mask": labels}
        )
        assert torch.equal(from_file["saliency"].map, from_array["saliency"].map)
        facts = from_file["saliency"].target[0]
        assert facts.field_size == 27
        assert "lesion" not in str(facts.parameters)  # paths may name patients


class TestFollow:
    """``follow`` binds again at every point; the default keeps the field of the image."""

    @every_rank
    def test_integrated_gradients(self, rank: int) -> None:
        network, shown = segmenter(rank).double(), images(rank, batch=2).double()
        method = {"name": "integrated_gradients", "steps": 6, "quadrature": "midpoint"}
        kept, followed = (
            explain(network, shown, method, {"kind": "pixelwise", "label": 1, "follow": follow})
            for follow in (False, True)
        )
        fixed = network(shown).argmax(1) == 1
        expected = {key: torch.zeros_like(shown) for key in ("kept", "followed")}
        for step in range(6):
            point = (shown * (2 * step + 1) / 12).requires_grad_(True)
            output = network(point)
            masks = {"kept": fixed, "followed": output.argmax(1) == 1}
            for key, mask in masks.items():
                score = (output[:, 1] * mask).sum()
                (gradient,) = torch.autograd.grad(score, point, retain_graph=True)
                expected[key] += gradient * shown / 6
        torch.testing.assert_close(kept["integrated_gradients"].map, expected["kept"])
        torch.testing.assert_close(followed["integrated_gradients"].map, expected["followed"])
        assert not torch.allclose(expected["kept"], expected["followed"])

    def test_not_for_two_forwards(self) -> None:
        target = {"kind": "pixelwise", "label": 1, "follow": True}
        with pytest.raises(ConfigError, match="follow=True changes between image and reference"):
            explain(segmenter(), images(), "deep_lift", target)

    def test_not_for_units(self) -> None:
        target = {"kind": "unit", "layer": "conv1", "channel": 0, "follow": True}
        with pytest.raises(TargetError, match="follow=True is for targets on the output"):
            explain(segmenter(), images(), "saliency", target)


def test_constant_probability_is_refused() -> None:
    """Softmax over one channel is 1 everywhere: there is nothing to explain."""
    network = nn.Conv2d(1, 1, 3, padding=1)
    target = {"kind": "pixelwise", "label": 1, "link": "probability", "activation": "softmax"}
    with pytest.raises(TargetError, match="softmax over one channel is 1 everywhere"):
        explain(network, images(), "saliency", target)
