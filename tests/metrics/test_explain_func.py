"""Methods for Quantus, and maps from elsewhere for voxplain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from networks import classifier, images, segmenter

from voxplain import evaluate, explain
from voxplain.errors import ConfigError, InputError
from voxplain.image import Image
from voxplain.metrics import Case, ExternalMap, read_map
from voxplain.metrics.quantus import as_explain_func
from voxplain.preprocess import Reorient, apply


@pytest.mark.parametrize("rank", [2, 3])
def test_every_image_is_explained_for_its_own_class(rank: int) -> None:
    network, batch = classifier(rank, 2), images(rank, 2, 4)
    func = as_explain_func({"name": "integrated_gradients", "steps": 3})
    classes = np.array([1, 0, 1, 0])
    maps = func(model=network, inputs=batch.numpy(), targets=classes, device="cpu")
    assert isinstance(maps, np.ndarray)
    assert maps.dtype == np.float32
    method = {"name": "integrated_gradients", "steps": 3}
    for row, label in enumerate(classes):
        alone = explain(network, batch[row : row + 1], method, int(label))
        expected = alone["integrated_gradients"].to_numpy()[0]
        np.testing.assert_allclose(maps[row], expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(maps[0], func(network, batch[:1].numpy(), 0)[0])


def test_draws_do_not_depend_on_the_batch() -> None:
    network, batch = classifier(2, 1), images(2, 1, 3)
    func = as_explain_func({"name": "smoothgrad", "of": "saliency", "samples": 3})
    together = func(network, batch, torch.tensor([1, 1, 1]))
    for row in range(3):
        alone = func(network, batch[row : row + 1], 1)
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-7)


def test_a_fixed_target_serves_segmentation() -> None:
    network, batch = segmenter(3, 1), images(3, 1, 2)
    target = {"kind": "pixelwise", "label": 1}
    maps = as_explain_func("saliency", target)(network, batch.numpy(), np.array([0, 2]))
    expected = explain(network, batch, "saliency", target)["saliency"].to_numpy()
    np.testing.assert_allclose(maps, expected)


def test_errors_name_what_does_not_fit() -> None:
    network, batch = classifier(2, 1), images(2, 1, 3)
    with pytest.raises(ConfigError, match="2 targets for 3 images"):
        as_explain_func("saliency")(network, batch, np.array([0, 1]))
    with pytest.raises(ConfigError, match="unknown method 'salienci'"):
        as_explain_func("salienci")
    with pytest.raises(ConfigError, match="no map on the grid of the image"):
        as_explain_func({"name": "layer_activation", "layers": ["conv1"]})(network, batch, 1)


def test_quantus_takes_the_function() -> None:
    quantus = pytest.importorskip("quantus")
    network, batch = classifier(2, 1).eval(), images(2, 1, 3)
    metric = quantus.MaxSensitivity(
        nr_samples=2, lower_bound=0.02, disable_warnings=True, display_progressbar=False
    )
    scores = metric(
        model=network,
        x_batch=batch.numpy(),
        y_batch=np.array([0, 1, 1]),
        explain_func=as_explain_func("saliency"),
        device="cpu",
    )
    assert len(scores) == 3
    assert np.isfinite(scores).all()


def scored(image: Any, maps: dict[str, Any], channels: int = 1, **options: Any) -> Any:
    network = segmenter(3, channels)
    target = {"kind": "pixelwise", "label": 1}
    mask = torch.zeros(image.grid.shape)
    mask[1:3, :2] = 1
    settings = {"cases": [Case(mask=mask)], "controls": False, **options}
    return evaluate(network, image, maps, ["relevance_mass_accuracy"], target, **settings)


def test_all_forms_of_a_map_score_the_same(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -8], [0, 0, 3.0, 4], [0, 0, 0, 1]])
    source = images(3, 1, 1)[0].numpy()
    nibabel.save(nibabel.Nifti1Image(source[0], affine), tmp_path / "scan.nii.gz")
    from voxplain.io import read_image

    scan = read_image(tmp_path / "scan.nii.gz")
    turned = apply(scan, [Reorient(axes="RAS")])
    attributions = explain(segmenter(3, 1), turned, "saliency", {"kind": "pixelwise", "label": 1})
    ours = attributions["saliency"]
    file = ours.save(tmp_path, case="a", target="1")
    np.save(tmp_path / "map.npy", ours.to_numpy())
    forms = {
        "attribution": ours,
        "network": ours.on_input,
        "array": ours.on_input.numpy()[0],
        "nifti": file,
        "text": str(file),
        "numpy": tmp_path / "map.npy",
        "declared": read_map(file, turned, sign="absolute"),
        "scan": ExternalMap(ours.map, place="scan"),
    }
    values = scored(turned, forms).values()
    assert values == pytest.approx([values[0]] * len(forms), rel=1e-5)


def test_a_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    scan = Image.from_array(images(3, 1, 1)[0], spacing=1.0)
    shape = scan.grid.shape
    nibabel.save(
        nibabel.Nifti1Image(np.ones(shape, dtype=np.float32), np.diag([2.0, 1, 1, 1])),
        tmp_path / "moved.nii.gz",
    )
    with pytest.raises(InputError, match="does not lie on the grid of the scan"):
        scored(scan, {"moved": tmp_path / "moved.nii.gz"})
    with pytest.raises(InputError, match="has shape"):
        scored(scan, {"small": np.ones((2, 2, 2))})
    (tmp_path / "map.txt").write_text("1")
    with pytest.raises(InputError, match="neither NIfTI nor NumPy"):
        scored(scan, {"text": tmp_path / "map.txt"})
    with pytest.raises(InputError, match="there is no file"):
        scored(scan, {"none": tmp_path / "none.npy"})


def test_a_batch_of_arrays_is_scored_row_by_row() -> None:
    network, batch = classifier(2, 1), images(2, 1, 3)
    maps = explain(network, batch, "saliency", 1)["saliency"].to_numpy()
    together = evaluate(network, batch, {"saliency": maps}, ["sparseness"], 1, controls=False)
    for row in range(3):
        own_maps = {"saliency": maps[row : row + 1]}
        alone = evaluate(network, batch[row : row + 1], own_maps, ["sparseness"], 1, controls=False)
        assert alone.values()[0] == together.values()[row]
