"""Perturbations: bounded, invertible, and the same for the same seed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from metric_cases import bright
from scipy import ndimage
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.variants.perturbations import (
    MEDICAL,
    BiasField,
    GaussianNeighbor,
    Perturbation,
    Rotation,
    Shift,
    UniformNoise,
    WindowShift,
)
from voxplain.models.output_place import OutputPlace
from voxplain.targets import UnperturbedOutput, WeightField
from voxplain.targets.field import Term

ALL = {**MEDICAL, "uniform": UniformNoise()}
every_rank = pytest.mark.parametrize("rank", [2, 3])


def _inner(values: Tensor, margin: int) -> Tensor:
    return values[(..., *(slice(margin, -margin),) * (values.ndim - 1))]


def _smooth(rank: int, size: int = 24) -> Tensor:
    """A wave ``(2, *spatial)``."""
    axes = [torch.linspace(0, 3, size, dtype=torch.float64)] * rank
    total = sum(torch.meshgrid(*axes, indexing="ij"))
    return torch.stack([torch.sin(total), torch.cos(total)])


@every_rank
@pytest.mark.parametrize("name", ALL)
def test_draws_follow_key_and_number(name: str, rank: int) -> None:
    around: Perturbation = ALL[name]
    image = bright(rank, 2, 8)
    once = around.changed(image, "key", 0)
    assert once.shape == image.shape
    assert not torch.equal(once, image)
    assert torch.equal(once, around.changed(image, "key", 0))
    if not isinstance(around, (Shift, Rotation)):  # which take turns, and draw nothing
        assert not torch.equal(once, around.changed(image, "other", 0))
    assert not torch.equal(once, around.changed(image, "key", 1))


@every_rank
def test_maps_come_back_from_a_shift(rank: int) -> None:
    around, image = Shift(2), bright(rank, 2, 8)
    axes = set()
    for draw in range(rank):
        moved = around.changed(image, "key", draw)
        axis = next(
            a
            for a in range(1, rank + 1)
            if torch.equal(moved.narrow(a, 2, 6), image.narrow(a, 0, 6))
        )
        axes.add(axis)
        assert torch.equal(_inner(around.returned(moved, draw), 2), _inner(image, 2))
    assert len(axes) == rank  # each axis has its turn


@every_rank
def test_maps_come_back_from_a_rotation(rank: int) -> None:
    around, image = Rotation(2.0), _smooth(rank)
    for draw in range(2):
        turned = around.changed(image, "key", draw)
        away = _inner(turned - image, 3).abs().amax()
        back = _inner(around.returned(turned, draw) - image, 3).abs().amax()
        assert float(away) > 0.05
        assert float(back) < 0.01
    opposite = around.changed(around.changed(image, "key", 0), "key", 1)
    assert _inner(opposite, 3) == pytest.approx(_inner(image, 3), abs=0.01)


def test_a_rotation_turns_a_point_by_its_angle() -> None:
    image = torch.zeros(1, 41, 41, dtype=torch.float64)
    image[0, 20, 36] = 1  # 16 voxels from the middle
    turned = Rotation(30.0).changed(image, "key", 0)
    place = turned[0].flatten().argmax().item()
    rows, columns = divmod(int(place), 41)
    assert abs(rows - 20) == 8  # 16 sin 30
    assert columns - 20 == 14  # 16 cos 30


@pytest.mark.parametrize(
    ("shape", "plane"), [((2, 9, 12), (1, 2)), ((1, 7, 9, 8), (2, 3)), ((1, 9, 5, 9), (1, 3))]
)
def test_cubic_voxels_turn_as_on_a_grid(shape: tuple[int, ...], plane: tuple[int, int]) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cubic = Rotation(30.0).on((2.0,) * (len(shape) - 1))
    for draw, angle in enumerate((30, -30)):
        expected = ndimage.rotate(
            image.numpy(), angle, plane, reshape=False, order=1, mode="nearest"
        )
        assert torch.equal(cubic.changed(image, "key", draw), torch.from_numpy(expected))


@every_rank
def test_a_disk_in_the_body_stays_a_disk(rank: int) -> None:
    """On flat voxels it is an ellipse of the grid, which a rotation of the grid would tilt."""
    shape, spacing = ((40, 120), (3.0, 1.0)) if rank == 2 else ((4, 40, 120), (1.0, 3.0, 1.0))
    rows = (torch.arange(40, dtype=torch.float64) - 19.5) * 3
    columns = torch.arange(120, dtype=torch.float64) - 59.5
    far = (rows[:, None] ** 2 + columns[None] ** 2).sqrt()
    disk = torch.exp(-((far / 25) ** 4)).expand(shape)[None].clone()
    inner = (..., slice(8, -8), slice(25, -25))
    turned = Rotation(20.0).on(spacing).changed(disk, "key", 0)
    assert float((turned - disk)[inner].abs().max()) < 0.03
    tilted = Rotation(20.0).changed(disk, "key", 0)
    assert float((tilted - disk)[inner].abs().max()) > 0.3


def test_a_rotation_turns_a_point_by_its_angle_in_the_body() -> None:
    image = torch.zeros(1, 21, 61, dtype=torch.float64)
    image[0, 10, 46] = 1  # 16 mm from the middle, with rows 2 mm apart
    turned = Rotation(30.0).on((2.0, 1.0)).changed(image, "key", 0)
    rows, columns = divmod(int(turned[0].flatten().argmax()), 61)
    assert abs(rows - 10) * 2 == 8  # 16 sin 30
    assert columns - 30 == 14  # 16 cos 30


def test_the_plane_is_that_of_the_longest_sides_of_the_body() -> None:
    """Thick slices make a short axis of the grid a long one."""
    image = bright(3, 1, 8)[:, :, :6]
    turned = Rotation(20.0).on((1.0, 4.0, 0.5)).changed(image, "key", 0)
    by_hand = [Rotation(20.0, (1.0, 4.0)).changed(image[..., k], "key", 0) for k in range(8)]
    assert torch.allclose(turned, torch.stack(by_hand, dim=-1))


@every_rank
@pytest.mark.parametrize("around", [Shift(2), Shift(1), Rotation(0.0)])
def test_weights_of_a_coarse_output_move_by_the_same_way(rank: int, around: Any) -> None:
    """Two voxels are one cell of half the resolution; one voxel is half a cell."""
    weights = bright(rank, 2, 6)[None]
    field = WeightField((Term(weights),), torch.zeros(1), ("",), labels=(1,))
    place = OutputPlace((0.5,) * rank, (2.0,) * rank, (6,) * rank, (12,) * rank)
    moved = around.moved(0, UnperturbedOutput(weights, place=place))(field).terms[0].weights
    if isinstance(around, Rotation):
        assert torch.allclose(moved, weights)
        return
    whole = Shift(1).changed(weights[0], "key", 0)
    expected = whole if around.voxels == 2 else (whole + weights[0]) / 2
    assert torch.allclose(moved[0], expected)


@pytest.mark.parametrize("around", [Shift(1), Rotation(2.0)])
def test_the_weights_follow_the_image(around: Any) -> None:
    weights = torch.stack([bright(2, 3, 8), bright(2, 3, 8, seed=1)])
    field = WeightField(
        terms=(Term(weights, "identity", "softmax"),),
        offset=torch.zeros(2),
        in_words=("", ""),
        labels=(1, 1),
    )
    moved = around.moved(0)(field)
    for row in range(2):
        assert torch.equal(moved.terms[0].weights[row], around.changed(weights[row], "key", 0))
    flat = WeightField(
        terms=(Term(torch.eye(2), "identity", "softmax"),),
        offset=torch.zeros(2),
        in_words=("", ""),
        labels=(1, 1),
    )
    assert torch.equal(around.moved(0)(flat).terms[0].weights, torch.eye(2))  # scores have no place


@every_rank
@pytest.mark.parametrize("strength", [0.1, 0.3])
def test_a_bias_field_is_smooth_and_bounded(rank: int, strength: float) -> None:
    image = bright(rank, 2, 16)
    low = image.flatten(1).amin(1).view(-1, *(1,) * rank)
    for draw in range(4):
        shaded = BiasField(strength).changed(image, "key", draw)
        field = ((shaded - low) / (image - low))[:, (image > low + 1e-9).all(0)]
        assert float((field - 1).abs().max()) == pytest.approx(strength, rel=1e-6)
        assert float(field.mean()) == pytest.approx(1, abs=0.01)  # no brighter as a whole
        assert torch.allclose(field[0], field[1])  # the coil is the same for all channels
        assert torch.isclose(shaded.flatten(1).amin(1), image.flatten(1).amin(1)).all()
    ramp = BiasField(strength).changed(torch.ones(1, *(16,) * rank).cumsum(1), "key", 0)
    assert torch.isfinite(ramp).all()


def test_noise_has_its_size() -> None:
    image = bright(2, 2, 64)
    image[1] *= 100
    scale = intensity_range(image)
    for draw in range(3):
        away = (UniformNoise(0.02).changed(image, "key", draw) - image) / scale
        assert float(away.abs().max()) == pytest.approx(0.02, rel=0.01)
        away = (GaussianNeighbor(0.01).changed(image, "key", draw) - image) / scale
        assert away.flatten(1).std(1).tolist() == pytest.approx([0.01, 0.01], rel=0.05)


def test_another_window_is_affine() -> None:
    image = bright(2, 1, 16)
    for draw in range(5):
        seen = WindowShift(0.05).changed(image, "key", draw).flatten()
        flat = image.flatten()
        slope = (seen[1:] - seen[:1]) / (flat[1:] - flat[:1])
        assert float(slope.max() - slope.min()) < 1e-6
        assert 0.95 <= float(slope.mean()) <= 1.05
        level = (seen.mean() - flat.mean()) / intensity_range(image).item()
        assert abs(float(level)) <= 0.05


@pytest.mark.parametrize("name", MEDICAL)
def test_a_volume_of_one_slice_changes_like_the_slice(name: str) -> None:
    around, image = MEDICAL[name], bright(2, 2, 8)
    for draw in range(2):
        flat = around.changed(image, "key", draw)
        thin = around.changed(image[:, None], "key", draw)
        assert thin[:, 0] == pytest.approx(flat)
        assert around.returned(thin, draw)[:, 0] == pytest.approx(around.returned(flat, draw))


def test_the_usual_changes_in_imaging_are_there() -> None:
    assert {"bias_field", "ct_noise", "window", "shift", "rotation"} <= set(MEDICAL)
    kinds = {type(around) for around in MEDICAL.values()}
    assert all(a is not b for a, b in itertools.combinations(kinds, 2))
