from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from synthetic_runs import UPRIGHT

from voxplain.image import Grid, Image
from voxplain.io import write_image
from voxplain.viz.volume import DisplayVolume, read_volume

OBLIQUE = np.array(
    [[-1.9, 0.3, 0.2, 40.0], [0.25, 0.2, 2.8, -30.0], [0.3, -1.1, 0.4, 12.0], [0, 0, 0, 1]]
)


def ramp(shape: tuple[int, ...], affine: np.ndarray) -> DisplayVolume:
    """Values that are linear in world coordinates, which correct resampling keeps."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    values = world @ np.array([0.5, -1.0, 2.0]) + 3
    return DisplayVolume(values[None].astype(np.float32), affine)


def expected(volume: DisplayVolume) -> np.ndarray:
    return ramp(volume.shape, volume.affine).data


def test_canonical_axes_grow_right_front_up_and_values_stay_in_place() -> None:
    canonical = ramp((7, 9, 11), OBLIQUE).canonical()
    assert nibabel.aff2axcodes(canonical.affine) == ("R", "A", "S")
    np.testing.assert_allclose(canonical.data, expected(canonical), atol=1e-4)


def test_crop_and_shrink_keep_values_in_place() -> None:
    volume = ramp((12, 13, 14), OBLIQUE).canonical()
    box = volume.crop((slice(2, 12), slice(1, 11), slice(3, 14)))
    np.testing.assert_allclose(box.data, expected(box), atol=1e-4)
    small = box.shrink((2, 3, 2))
    assert small.shape == (5, 3, 5)
    np.testing.assert_allclose(small.data, expected(small), atol=1e-3)


def test_a_map_on_another_grid_is_resampled_through_both_affines() -> None:
    image = ramp((20, 18, 16), OBLIQUE)
    coarse = OBLIQUE @ np.diag([4, 3, 2, 1])
    coarse[:3, 3] = (OBLIQUE @ [1.5, 1, 0.5, 1])[:3]
    resampled = ramp((5, 6, 8), coarse).onto(image)
    inner = (slice(None), slice(2, 17), slice(1, 16), slice(1, 14))
    np.testing.assert_allclose(resampled.data[inner], image.data[inner], atol=1e-3)


def test_beyond_half_a_cell_a_resampled_map_is_zero() -> None:
    line = DisplayVolume(np.full((1, 2, 1, 1), 5, np.float32), np.diag([4.0, 4, 4, 1]))
    fine = DisplayVolume(np.zeros((1, 13, 1, 1), np.float32), np.eye(4))
    shifted = fine.affine.copy()
    shifted[0, 3] = -4
    resampled = line.onto(DisplayVolume(fine.data, shifted)).data[0, :, 0, 0]
    np.testing.assert_array_equal(resampled, [0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0])


def test_labels_take_the_nearest_cell() -> None:
    labels = DisplayVolume(
        np.array([1, 7, 3], np.uint8).reshape(1, 3, 1, 1), np.diag([3.0, 1, 1, 1])
    )
    fine = DisplayVolume(np.zeros((1, 7, 1, 1)), np.eye(4))
    resampled = labels.onto(fine, labels=True).data[0, :, 0, 0]
    np.testing.assert_array_equal(resampled, [1, 1, 7, 7, 7, 3, 3])


def test_reading_keeps_channels_and_the_stated_affine(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    file = nibabel.Nifti1Image(data, OBLIQUE)
    file.set_sform(OBLIQUE, 0)
    nibabel.save(file, tmp_path / "map.nii.gz")
    volume = read_volume(tmp_path / "map.nii.gz", 3, "mm", ("a", "b", "c"), OBLIQUE.tolist())
    np.testing.assert_allclose(volume.data, np.moveaxis(data, -1, 0))
    np.testing.assert_allclose(volume.affine, OBLIQUE)
    assert not volume.picture


@pytest.mark.parametrize(
    ("affine", "unit", "code", "picture"),
    [
        (UPRIGHT, "pixel", 2, True),
        (UPRIGHT, "mm", 2, True),
        (UPRIGHT, "mm", 1, False),
        (np.eye(4), "mm", 2, False),
    ],
)
def test_a_slice_of_a_patient_is_not_a_picture(
    tmp_path: Path, affine: np.ndarray, unit: str, code: int, picture: bool
) -> None:
    file = nibabel.Nifti1Image(np.zeros((4, 5, 1), np.float32), affine)
    file.set_sform(affine, code)
    nibabel.save(file, tmp_path / "slice.nii.gz")
    assert read_volume(tmp_path / "slice.nii.gz", 2, unit).picture is picture


def test_tensors_of_two_and_three_axes_become_volumes() -> None:
    flat = DisplayVolume.of(torch.ones(3, 4, 5), Grid.default((4, 5)))
    assert flat.shape == (4, 5, 1)
    assert flat.picture
    deep = DisplayVolume.of(torch.ones(1, 4, 5, 6), Grid((4, 5, 6), OBLIQUE))
    assert deep.shape == (4, 5, 6)
    assert not deep.planar


def test_the_window_that_a_source_states_comes_back_from_the_copy_of_a_run(tmp_path):
    values = torch.arange(24.0).reshape(1, 2, 3, 4)
    for source, window in (({"window": [3.0, 17.0]}, (3, 17)), ({}, None)):
        image = Image(values, Grid((2, 3, 4), np.eye(4)), source=source)
        path = write_image(image, tmp_path / "copy.nii.gz")
        assert read_volume(path, 3, "mm").window == window


def test_a_smaller_copy_of_labels_keeps_the_middle_of_every_block() -> None:
    labels = np.arange(6 * 7 * 9).reshape(1, 6, 7, 9).astype(np.int32)
    small = DisplayVolume(labels, OBLIQUE).shrink((2, 3, 1), labels=True)
    np.testing.assert_array_equal(small.data, labels[:, 1::2, 1:6:3])
    assert small.data.dtype == labels.dtype


def test_channels_are_added_up() -> None:
    """Shares of a score stay shares of the score."""
    data = np.random.default_rng(3).normal(size=(3, 4, 5, 6)).astype(np.float32)
    volume = DisplayVolume(data, np.eye(4))
    np.testing.assert_allclose(volume.channel_sum(), data[0] + data[1] + data[2], rtol=1e-5)


def test_blocks_of_unequal_size_stay_in_place() -> None:
    """The mean of a block of a ramp is its value at the middle of the block."""
    volume = ramp((12, 13, 14), OBLIQUE)
    small = volume.shrink((1, 2, 3))
    assert small.shape == (12, 6, 4)
    np.testing.assert_allclose(small.data, expected(small), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(small.spacing, volume.spacing * (1, 2, 3))
