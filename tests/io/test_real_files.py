"""Files of scanners and challenges, where they are available."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from voxplain.errors import InputError
from voxplain.io import read_image, read_mask
from voxplain.preprocess import apply

DATA = (Path(__file__).parents[2] / "../shared/data").resolve()
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real images is absent")


def test_slices_of_a_chest_lie_where_the_converted_volume_says():
    volume, series = read_image(DATA / "lung_ct/ct.nii.gz"), read_image(DATA / "lung_ct/dicom")
    assert series.grid.axis_codes == volume.grid.axis_codes == ("L", "P", "S")
    np.testing.assert_allclose(series.grid.spacing, (0.576172, 0.576172, 1.25), rtol=1e-5)
    axes = [
        np.arange(0, size, stride)
        for size, stride in zip(series.grid.shape, (9, 9, 2), strict=True)
    ]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    world = np.c_[series.grid.world(index), np.ones(len(index))]
    there = (world @ np.linalg.inv(volume.grid.affine).T)[:, :3].T
    ours = series.data[0].numpy()[tuple(index.T)]

    def agreement(shift):
        moved = there + np.array(shift)[:, None]
        theirs = map_coordinates(volume.data[0].numpy(), moved, order=1, cval=np.nan)
        seen = np.isfinite(theirs)
        return np.corrcoef(theirs[seen], ours[seen])[0, 1]

    best = agreement((0, 0, 0))
    assert best > 0.99
    shifts = [(0.5, 0, 0), (-0.5, 0, 0), (0, 0.5, 0), (0, -0.5, 0), (0, 0, 0.5), (0, 0, -0.5)]
    assert all(agreement(shift) < best for shift in shifts)


def test_single_ct_images_equal_the_collected_array():
    table = [line.split(",") for line in (DATA / "ct_contrast/cases.csv").read_text().splitlines()]
    assert len(table) > 60
    slices = np.load(DATA / "ct_contrast/slices_256_hu.npz")["hu"]
    matched = 0
    for file in sorted((DATA / "ct_contrast/dicom").iterdir()):
        image = read_image(file)
        assert image.grid.shape == (512, 512)
        assert image.source["unit"] == "HU"
        halved = image.data[0].reshape(256, 2, 256, 2).mean(dim=(1, 3)).numpy().clip(-1024, 3071)
        errors = np.abs(slices.astype(np.float32).clip(-1024, 3071) - halved).mean(axis=(1, 2))
        matched += errors.min() < 25
    assert matched == 16


def test_a_folder_of_many_patients_is_no_series():
    with pytest.raises(InputError, match="DICOM series"):
        read_image(DATA / "ct_contrast/dicom")


def test_four_modalities_of_a_glioma_and_its_labels_share_a_grid():
    folder = sorted((DATA / "brats2mm").glob("Brats*"))[0]
    names = ("flair", "t1", "t1ce", "t2")
    image = read_image([folder / f"{folder.name}_{name}.nii.gz" for name in names], channels=names)
    labels = read_mask(folder / f"{folder.name}_seg.nii.gz", image.grid)
    assert image.data.shape[0] == 4
    assert set(labels.unique().tolist()) <= {0, 1, 2, 4}
    flair = image.data[0]
    assert flair[labels == 2].mean() > 1.2 * flair[(labels == 0) & (flair > 0)].mean()


def test_preprocessing_of_a_real_case_keeps_the_tumor_in_place():
    folder = sorted((DATA / "brats2mm").glob("Brats*"))[0]
    image = read_image(folder / f"{folder.name}_flair.nii.gz")
    labels = read_mask(folder / f"{folder.name}_seg.nii.gz", image.grid)
    steps = [
        {"kind": "reorient"},
        {"kind": "spacing", "size": 1.5},
        {"kind": "crop_foreground", "margin": "6mm"},
        {"kind": "normalize", "foreground": True},
        {"kind": "pad_to_multiple", "multiple": 16},
    ]
    seen = apply(image, steps)
    back = seen.restore(seen.project(labels > 0)[None].float(), "label")[0] > 0.5
    tumor = labels > 0
    dice = 2 * (back & tumor).sum() / (back.sum() + tumor.sum())
    assert dice > 0.93
    flair = seen.restore(seen.data)[0] * seen.intensity[0][0] + seen.intensity[0][1]
    inside = image.data[0] > 0
    seen_error = (flair - image.data[0])[inside].abs().median() / image.data[0][inside].std()
    assert seen_error < 0.15


def test_fundus_photograph_and_its_mask():
    image = read_image(DATA / "retina_vessels/01_image.png")
    vessels = read_mask(DATA / "retina_vessels/01_vessels.png", image.grid)
    assert image.data.shape == (3, 584, 565)
    assert set(vessels.unique().tolist()) == {0, 1}
    green = image.data[1]
    inside = read_mask(DATA / "retina_vessels/01_fov.png", image.grid) == 1
    assert green[vessels == 1].mean() < green[inside & (vessels == 0)].mean()
    assert torch.isfinite(image.data).all()
