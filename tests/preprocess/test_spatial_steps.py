"""Steps and their ways back, against affines, adjoints, closed forms and torch's own resize."""

import itertools

import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes
from scipy.ndimage import map_coordinates
from torch.nn import functional

from voxplain.errors import ConfigError, InputError
from voxplain.image import Grid, Image
from voxplain.preprocess import apply, parse_step
from voxplain.preprocess.resample import nearest

STEPS = [
    {"kind": "reorient", "axes": "RAS"},
    {"kind": "spacing", "size": 1.0},
    {"kind": "crop", "start": [4, 3, 5], "shape": [60, 30, 40]},
    {"kind": "pad_to_multiple", "multiple": 16},
]


def oblique_grid(shape=(40, 36, 26)) -> Grid:
    """Oblique, anisotropic and left-handed, with an odd axis order and origin."""
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(np.eye(3) + 0.25 * rng.standard_normal((3, 3)))
    axes = turn[:, [1, 2, 0]] * [-0.9, 1.3, 2.6]
    axes = axes if np.linalg.det(axes) < 0 else axes * [1, -1, 1]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, [31.0, -57.0, 12.5]
    return Grid(shape, affine)


def positions(grid: Grid) -> torch.Tensor:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return torch.from_numpy(grid.world(index))


def blob(grid: Grid, center: np.ndarray, width: float = 3.0) -> torch.Tensor:
    distance = (positions(grid) - torch.from_numpy(center)).square().sum(-1)
    return torch.exp(-distance / (2 * width**2))[None]


def centroid(values: torch.Tensor) -> torch.Tensor:
    weight = values[0] / values[0].sum()
    axes = [torch.arange(size, dtype=values.dtype) for size in values.shape[1:]]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return (index * weight[..., None]).sum(dim=tuple(range(values.ndim - 1)))


@pytest.mark.parametrize("mode", ["value", "mass"])
def test_landmark_is_found_on_the_network_grid_and_back_on_the_scan(mode):
    grid = oblique_grid()
    assert np.linalg.det(grid.affine) < 0
    place = np.array([21.0, 17.0, 12.0])
    world = grid.world(place)
    seen = apply(Image(blob(grid, world), grid), STEPS)
    assert [step.name for step in seen.history] == [
        "reorient",
        "spacing",
        "crop",
        "pad_to_multiple",
    ]

    # Forward: the blob of the scan lies where the new affine says that the place is.
    np.testing.assert_allclose(seen.grid.world(centroid(seen.data)), world, atol=0.05)
    # Back: a map made on the network's grid, without any look at the scan's.
    back = seen.restore(blob(seen.grid, world), mode)
    assert back.shape == (1, *grid.shape)
    assert torch.allclose(centroid(back), torch.from_numpy(place), atol=0.01)
    peak = np.unravel_index(int(back[0].argmax()), grid.shape)
    assert np.abs(np.array(peak) - place).max() <= 0.5


@pytest.mark.parametrize("gradient", [(1.0, 0, 0), (0, 1.0, 0), (0.3, -0.7, 1.1)])
def test_ramp_in_millimeters_comes_back_as_the_same_ramp(gradient):
    grid = oblique_grid()
    ramp = positions(grid) @ torch.tensor(gradient, dtype=torch.float64)
    seen = apply(Image(ramp[None], grid), STEPS[:2])
    expected = positions(seen.grid) @ torch.tensor(gradient, dtype=torch.float64)
    inner = (slice(None), *(slice(5, -5),) * 3)
    assert (seen.data[0] - expected)[inner[1:]].abs().max() < 1e-4
    assert (seen.restore(seen.data) - ramp[None])[inner].abs().max() < 1e-4


@pytest.mark.parametrize("size", [[0.7, 2.0, 3.1], 1.0, 1.45])
def test_mass_keeps_the_total_of_any_signed_map(size):
    grid = oblique_grid()
    generator = torch.Generator().manual_seed(0)
    seen = apply(
        Image(torch.zeros(2, *grid.shape), grid), [STEPS[0], {"kind": "spacing", "size": size}]
    )
    density = torch.randn(seen.data.shape, dtype=torch.float64, generator=generator)
    back = seen.restore(density, "mass")
    assert torch.allclose(back.sum(dim=(1, 2, 3)), density.sum(dim=(1, 2, 3)), rtol=1e-9)
    assert not torch.allclose(seen.restore(density, "value").sum(), density.sum(), rtol=0.05)


@pytest.mark.parametrize("size", [0.4, 0.9, 1.1, 1.5, 2.6])
def test_mass_of_a_ramp_is_the_ramp_times_the_ratio_of_the_voxel_volumes(size):
    image = Image.from_array(torch.zeros(1, 40, 30, dtype=torch.float64), spacing=1.0)
    seen = apply(image, [{"kind": "spacing", "size": size}])
    ratio = image.grid.voxel_volume / seen.grid.voxel_volume
    slope = torch.tensor([1.0, -0.4, 0], dtype=torch.float64)
    back = seen.restore((positions(seen.grid) @ slope)[None], "mass")[0]
    expected = ratio * positions(image.grid) @ slope
    assert torch.allclose(back[7:-7, 7:-7], expected[7:-7, 7:-7], atol=1e-9)
    value = seen.restore((positions(seen.grid) @ slope)[None], "value")[0]
    assert torch.allclose(value[7:-7, 7:-7], expected[7:-7, 7:-7] / ratio, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 50), (64, 64), (13, 9)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_the_bilinear_resize_of_torch(shape, antialias):
    data = torch.rand(3, 37, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = {"kind": "resize", "shape": shape, "antialias": antialias}
    ours = apply(Image.from_array(data), [step]).data
    theirs = functional.interpolate(data[None], size=shape, mode="bilinear", antialias=antialias)[0]
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_reorient_moves_no_voxel_in_the_patient(axes):
    grid = oblique_grid((5, 6, 7))
    image = Image(positions(grid).permute(3, 0, 1, 2), grid)
    seen = apply(image, [{"kind": "reorient", "axes": axes}])
    assert "".join(aff2axcodes(seen.grid.affine)) == axes
    assert torch.allclose(seen.data.permute(1, 2, 3, 0), positions(seen.grid))
    assert torch.equal(seen.restore(seen.data), image.data)


def test_every_one_of_the_48_orientations_comes_back_exactly():
    image = Image.from_array(torch.arange(24.0).reshape(1, 2, 3, 4), spacing=(1, 2, 3))
    for order in itertools.permutations(["RL", "AP", "SI"]):
        for letters in itertools.product(*order):
            seen = apply(image, [{"kind": "reorient", "axes": "".join(letters)}])
            assert "".join(seen.grid.axis_codes) == "".join(letters)
            assert torch.equal(seen.restore(seen.data), image.data)
            assert torch.equal(seen.project(image.data[0].long()), seen.data[0].long())


def test_crop_and_padding_keep_voxels_in_place_and_come_back_with_zeros_outside():
    image = Image.from_array(torch.rand(2, 9, 11), spacing=(1, 2))
    seen = apply(image, [{"kind": "center_crop_pad", "shape": [6, 16], "value": 5}])
    np.testing.assert_allclose(seen.grid.world((0, 2)), image.grid.world((1, 0)), atol=1e-12)
    assert torch.equal(seen.data[:, :, 2:13], image.data[:, 1:7])
    assert (seen.data[:, :, :2] == 5).all()
    back = seen.restore(seen.data)
    assert torch.equal(back[:, 1:7], image.data[:, 1:7])
    assert not back[:, 0].any()
    assert not back[:, 7:].any()


def test_padding_with_the_minimum_is_per_channel():
    image = Image.from_array(torch.tensor([[[1.0, 2]], [[-3, 4]]]))
    seen = apply(image, [{"kind": "pad_to_multiple", "multiple": [3, 2], "value": "minimum"}])
    assert seen.data[:, 0, 0].tolist() == [1, -3]
    assert seen.data.shape == (2, 3, 2)


def test_foreground_box_holds_every_channel_with_a_margin_in_millimeters():
    data = torch.zeros(2, 20, 20)
    data[0, 5, 7] = 1
    data[1, 9, 3] = 1
    image = Image.from_array(data, spacing=(2, 1))
    seen = apply(image, [{"kind": "crop_foreground", "margin": "4mm"}])
    assert seen.data.shape == (2, 5 + 2 * 2, 5 + 3 + 4)
    assert torch.equal(seen.restore(seen.data), data)


def test_labels_project_to_the_network_grid_as_nearest_of_the_image():
    grid = oblique_grid()
    labels = (positions(grid)[..., 2] > 5).long() + 2 * (positions(grid)[..., 0] > 0).long()
    seen = apply(Image(torch.zeros(1, *grid.shape), grid), STEPS)
    projected = seen.project(labels)
    assert projected.shape == seen.grid.shape
    assert projected.dtype == torch.int64
    there = positions(seen.grid)
    expected = (there[..., 2] > 5).long() + 2 * (there[..., 0] > 0).long()
    near = ((there[..., 2] - 5).abs() < 2.7) | (there[..., 0].abs() < 2.7)
    inside = seen.project(torch.ones(grid.shape)) > 0
    assert torch.equal(projected[inside & ~near], expected[inside & ~near])
    back = seen.restore(projected[None], "label")[0]
    changed = (back != labels)[back > 0].float().mean()
    assert changed < 0.08  # Only at the two planes.


def test_a_volume_of_one_slice_equals_the_image():
    flat = Image.from_array(torch.rand(2, 21, 17), spacing=(0.8, 1.7))
    deep = Image.from_array(flat.data[..., None], spacing=(0.8, 1.7, 4))
    steps_flat = [{"kind": "spacing", "size": 1}, {"kind": "pad_to_multiple", "multiple": 8}]
    steps_deep = [
        {"kind": "spacing", "size": [1, 1, None]},
        {"kind": "pad_to_multiple", "multiple": [8, 8, 1]},
    ]
    one, other = apply(flat, steps_flat), apply(deep, steps_deep)
    assert torch.allclose(one.data, other.data[..., 0])
    for mode in ("value", "mass", "label"):
        back = other.restore(other.data, mode)[..., 0]
        assert torch.allclose(one.restore(one.data, mode), back)


def test_sagittal_slice_reorients_by_the_letters_it_has():
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 1], [-2, 0, 0], [0, -3, 0]]
    image = Image(torch.rand(1, 4, 5), Grid((4, 5), affine))
    assert image.grid.axis_codes == ("P", "I")
    seen = apply(image, [{"kind": "reorient"}])
    assert seen.grid.axis_codes == ("A", "S")
    np.testing.assert_allclose(seen.grid.world((3, 4)), image.grid.world((0, 0)), atol=1e-12)


def test_a_step_that_changes_nothing_leaves_no_trace():
    image = Image.from_array(torch.rand(1, 16, 16, 16), spacing=1.0)
    steps = [*STEPS[:2], STEPS[3], {"kind": "resize", "shape": 16}]
    assert apply(image, steps) is image


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"kind": "spacng"}, "did you mean spacing"),
        ({"kind": "spacing", "sise": 1}, "spacing.sise"),
        ({"kind": "spacing", "size": [1, 1]}, "2 values .* for 3 image axes"),
        ({"kind": "reorient", "axes": "RAL"}, "not an orientation"),
        ({"kind": "reorient", "axes": "XYZ"}, "not an orientation"),
        ({"kind": "crop", "start": 4, "shape": 5}, "does not fit"),
    ],
)
def test_steps_that_do_not_fit_are_refused_in_one_sentence(step, words):
    with pytest.raises(ConfigError, match=words):
        apply(Image.from_array(torch.rand(1, 8, 8, 8), spacing=1.0), [step])


def test_empty_foreground_and_missing_size_say_what_would_work():
    picture = Image.from_array(torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="no voxel is above 0"):
        apply(picture, [{"kind": "crop_foreground"}])
    with pytest.raises(ConfigError, match="use resize"):
        apply(picture, [{"kind": "spacing"}])
    with pytest.raises(ConfigError, match="no anatomical axes"):
        apply(picture, [{"kind": "reorient"}])


def test_steps_survive_json():
    for step in map(parse_step, STEPS):
        assert parse_step(step.model_dump(mode="json")) == step


def test_a_spacing_that_is_off_by_a_percent_is_resampled():
    grid = Grid((50, 40, 3), np.diag([1.02, 1.0, 1.0, 1.0]))
    image = apply(Image(torch.rand(1, *grid.shape), grid), [{"kind": "spacing", "size": 1.0}])
    assert image.grid.shape == (51, 40, 3)
    assert image.grid.spacing == pytest.approx((1.0, 1.0, 1.0))


def test_spacing_toward_a_coarser_grid_does_not_alias():
    stripes = torch.arange(64).remainder(2).double().expand(1, 64, 64)
    image = Image.from_array(stripes, spacing=1.0)
    seen = apply(image, [{"kind": "spacing", "size": 2.2}])
    assert (seen.data[0, 3:-3, 3:-3] - 0.5).abs().max() < 0.12
    plain = apply(image, [{"kind": "resize", "shape": 29, "antialias": False}])
    assert (plain.data[0, 3:-3, 3:-3] - 0.5).abs().max() > 0.4


def test_spacing_without_anti_aliasing_samples_the_linear_interpolation():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 12, 15, 9)))
    image = Image(values, Grid((12, 15, 9), np.diag([1.0, 1, 2, 1])))
    step = {"kind": "spacing", "size": [2.4, 3.0, 2.0], "antialias": False}
    seen = apply(image, [step])
    index = np.stack(np.meshgrid(*map(np.arange, seen.grid.shape), indexing="ij"), axis=-1)
    world = np.concatenate([seen.grid.world(index), np.ones((*seen.grid.shape, 1))], axis=-1)
    there = np.moveaxis((world @ np.linalg.inv(image.grid.affine).T)[..., :3], -1, 0)
    expected = map_coordinates(values[0].numpy(), there, order=1, mode="nearest")
    np.testing.assert_allclose(seen.data[0], expected, atol=1e-6)
    smooth = apply(image, [step | {"antialias": True}])
    assert smooth.data.std() < 0.8 * seen.data.std()


def test_ties_of_the_nearest_voxel_go_up_and_none_is_skipped():
    halves = nearest(torch.arange(8), (4,), (0.5,), (2.0,))
    assert halves.tolist() == [1, 3, 5, 7]
    steps = nearest(torch.arange(8), (7,), (0.5,), (1.0,))
    assert steps.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_a_picture_with_a_spacing_still_has_no_anatomical_axes():
    image = Image(torch.zeros(1, 4, 5), Grid.picture((4, 5), 0.5))
    with pytest.raises(ConfigError, match="no anatomical axes"):
        apply(image, [{"kind": "reorient"}])
