"""Grids and images: places in the patient, told by arithmetic."""

import math

import numpy as np
import pytest
import torch

from voxplain.errors import InputError
from voxplain.image import Grid, Image

OBLIQUE = np.array(
    [[-0.8, 0.3, 0.5, 10.0], [0.2, 1.1, -0.4, -20.0], [0.1, 0.2, 2.4, 30.0], [0, 0, 0, 1]]
)


def test_world_is_the_affine_applied_to_voxel_centers():
    grid = Grid((4, 5, 6), OBLIQUE)
    index = np.array([[0, 0, 0], [3, 1, 2]])
    expected = [OBLIQUE[:3, 3], (OBLIQUE @ [3, 1, 2, 1])[:3]]
    np.testing.assert_allclose(grid.world(index), expected)


def test_sub_grid_places_its_cells_at_start_plus_step_times_index():
    grid = Grid((8, 9, 10), OBLIQUE)
    sub = grid.sub((0.5, -1, 2), (2, 3, 1), (3, 3, 3))
    np.testing.assert_allclose(sub.world((1, 2, 0)), grid.world((2.5, 5, 2)))


def test_voxel_volume_of_a_sheared_grid_is_the_determinant():
    sheared = np.diag([1.0, 1, 2, 1])
    sheared[1, 2] = 2 * math.tan(math.radians(20))
    assert Grid((3, 3, 3), sheared).voxel_volume == pytest.approx(2)
    assert Grid((3, 3, 3), OBLIQUE).voxel_volume == pytest.approx(abs(np.linalg.det(OBLIQUE)))
    assert Grid.default((3, 3), (0.5, 3)).voxel_volume == pytest.approx(1.5)


@pytest.mark.parametrize(("shift", "same"), [(0.005, True), (0.05, False)])
def test_grids_match_to_a_hundredth_of_a_voxel_at_every_corner(shift, same):
    turned = OBLIQUE.copy()
    turned[0, 0] += shift / 99  # Adds up along 99 steps.
    assert Grid((100, 5, 6), OBLIQUE).matches(Grid((100, 5, 6), turned)) is same
    assert not Grid((100, 5, 6), OBLIQUE).matches(Grid((100, 6, 5), OBLIQUE))


def test_singular_affine_is_refused_in_words():
    with pytest.raises(InputError, match="two axes point the same way"):
        Grid((2, 2, 2), np.diag([1.0, 0, 1, 1]))


def test_image_needs_one_leading_channel_axis():
    with pytest.raises(InputError, match="one leading channel axis"):
        Image(torch.zeros(4, 4), Grid.default((4, 4)))


def test_source_intensity_goes_through_slope_and_intercept_of_each_channel():
    image = Image(
        torch.zeros(2, 3, 3), Grid.default((3, 3)), intensity=((200.0, 50.0), (1.0, -7.0))
    )
    assert image.source_intensity(0) == [50, -7]
    assert image.source_intensity(-1) == [-150, -8]
    assert Image.from_array(torch.zeros(2, 3, 3)).source_intensity(4) == [4, 4]


def test_a_map_or_mask_of_another_shape_is_refused():
    image = Image.from_array(torch.zeros(1, 3, 4))
    with pytest.raises(InputError, match=r"\(4, 3\).*\(3, 4\)"):
        image.restore(torch.zeros(1, 4, 3))
    with pytest.raises(InputError, match="label mask"):
        image.project(torch.zeros(4, 3, dtype=torch.long))


def test_numpy_integers_become_floating_point_and_keep_their_values():
    image = Image.from_array(np.arange(6, dtype=np.int16).reshape(1, 2, 3))
    assert image.data.dtype == torch.float32
    assert image.data[0, 1].tolist() == [3, 4, 5]


def test_the_tolerance_between_grids_is_that_of_the_finest_axis():
    """A hundredth of 0.5 mm, however thick the slices are."""
    fine = Grid((5, 7, 11), np.diag([4.0, 0.5, 1.25, 1]))
    for axis in range(3):
        for shift, same in ((0.0049, True), (0.0051, False)):
            moved = fine.affine.copy()
            moved[axis, 3] += shift
            assert fine.matches(Grid(fine.shape, moved)) is same


@pytest.mark.parametrize("mode", ["value", "mass", "label"])
def test_what_kind_of_values_travels_is_told_to_every_step(mode):
    seen = []

    class Step:
        name, grid = "step", Grid.default((3, 4))

        def __call__(self, values, mode):
            seen.append(("back", mode))
            return values

        def forward(self, values, mode="label"):
            seen.append(("forth", mode))
            return values

    image = Image(torch.zeros(1, 3, 4), Grid.default((3, 4)), history=(Step(), Step()))
    image.carry(torch.zeros(1, 3, 4), mode)
    image.restore(torch.zeros(1, 3, 4), mode)
    assert seen == [("forth", mode)] * 2 + [("back", mode)] * 2
    seen.clear()
    image.project(torch.zeros(3, 4, dtype=torch.long))
    assert seen == [("forth", "label")] * 2


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_whether_axes_are_parallel_does_not_depend_on_their_length(scale):
    """Voxels of a microscope are no flat ones."""
    grid = Grid((3, 4, 5), OBLIQUE @ np.diag([scale, scale, scale, 1]))
    assert grid.voxel_volume == pytest.approx(scale**3 * abs(np.linalg.det(OBLIQUE)))
    parallel = OBLIQUE.copy()
    parallel[:3, 1] = 2 * parallel[:3, 0]
    with pytest.raises(InputError, match="two axes point the same way"):
        Grid((3, 4, 5), parallel @ np.diag([scale, scale, scale, 1]))
