"""Transforms: the identity at their identity, mm on any voxels, seeds, and one slice as a slice."""

from __future__ import annotations

import pytest
import torch
from synthesis_cases import surface
from torch import Tensor

from voxplain.grid import Grid
from voxplain.synthesis import Transforms
from voxplain.synthesis.surface import Surface
from voxplain.synthesis.transforms import through_plane

OFF = Transforms.none()
ONE_BY_ONE = [
    {"jitter": 0.2},
    {"rotation": 30.0},
    {"tilt": 30.0},
    {"scale": 0.3},
    {"blur": 0.2},
    {"noise": 0.2},
    {"field": 0.2},
    {"dropout": 0.6},
]


def changed(transforms: Transforms, place: Surface, images: Tensor, key: str = "a") -> Tensor:
    keys = [f"{key}{n}" for n in range(len(images))]
    return transforms(images, place, keys, step=3, progress=0.25)


@pytest.mark.parametrize("rank", [2, 3])
def test_all_off_changes_nothing(rank: int) -> None:
    place = surface(rank)
    images = place.noise(["x", "y"])
    assert torch.equal(changed(OFF, place, images), images)


@pytest.mark.parametrize("field", ONE_BY_ONE, ids=lambda field: next(iter(field)))
@pytest.mark.parametrize("rank", [2, 3])
def test_each_is_the_identity_at_its_limit_and_something_beyond(
    rank: int, field: dict[str, float]
) -> None:
    place = surface(rank)
    images = place.noise(["x", "y"])
    name = next(iter(field))
    tiny = OFF.model_copy(update={name: 1e-9})
    assert torch.allclose(changed(tiny, place, images), images, atol=1e-6)
    large = changed(OFF.model_copy(update=field), place, images)
    if rank == 2 and name == "tilt":
        assert torch.allclose(large, images, atol=1e-6)  # there is nothing to tilt out of
    else:
        assert not torch.allclose(large, images, atol=1e-3)


@pytest.mark.parametrize("field", ONE_BY_ONE, ids=lambda field: next(iter(field)))
def test_each_is_differentiable_and_seeded(field: dict[str, float]) -> None:
    place = surface(2, Grid.default((5, 4), (1.0, 2.0)))
    transforms = OFF.model_copy(update=field)
    images = place.noise(["x"]).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: changed(transforms, place, x), (images,))
    first, again = changed(transforms, place, images), changed(transforms, place, images)
    assert torch.equal(first, again)
    if "blur" not in field and "tilt" not in field:
        assert not torch.equal(first, changed(transforms, place, images, key="b"))


def test_what_changes_an_image_does_not_depend_on_the_others() -> None:
    place, transforms = surface(3), Transforms(dropout=0.4)
    images = place.noise(["x", "y", "z"])
    together = transforms(images, place, ["a", "b", "c"], 5, 0.1)
    alone = transforms(images[1:2], place, ["b"], 5, 0.1)
    assert torch.allclose(together[1:2], alone, atol=1e-12)


def test_a_volume_of_one_slice_is_changed_as_the_slice() -> None:
    flat, transforms = surface(2), Transforms()
    images = flat.noise(["x", "y"])
    for shape, spacing, axis in (((1, 12, 10), (2, 1, 1.5), 2), ((12, 10, 1), (1, 1.5, 2), 4)):
        solid = Surface(Grid.default(shape, spacing), flat.statistics, flat.like)
        found = changed(transforms, solid, images.unsqueeze(axis))
        assert torch.allclose(found.squeeze(axis), changed(transforms, flat, images), atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0)])
def test_rotation_keeps_a_ring_in_mm_a_ring(spacing: tuple[float, float]) -> None:
    shape = tuple(round(60 / step) for step in spacing)
    place = surface(2, Grid.default(shape, spacing), channels=1)
    axes = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    radius = torch.hypot(axes[0][:, None], axes[1][None].double())
    ring = torch.exp(-0.5 * ((radius - 15) / 4) ** 2)[None, None].double()
    turned = changed(OFF.model_copy(update={"rotation": 90.0}), place, ring)
    assert float((turned - ring).abs().max()) < 0.08
    lone = torch.where(axes[0][:, None] > 0, ring, 0)
    assert (
        float((changed(OFF.model_copy(update={"rotation": 90.0}), place, lone) - lone).abs().max())
        > 0.5
    )


def test_blur_decays_along_the_steps() -> None:
    place, transforms = surface(2), OFF.model_copy(update={"blur": 0.3})
    images = place.noise(["x"])
    spreads = [float(transforms(images, place, ["a"], 0, at).std()) for at in (0.0, 0.5, 0.9, 1.0)]
    assert spreads == sorted(spreads)
    assert spreads[-1] == pytest.approx(float(images.std()))


def test_one_channel_always_stays() -> None:
    place, transforms = surface(2), OFF.model_copy(update={"dropout": 0.99})
    images = place.noise([f"{n}" for n in range(40)])
    found = changed(transforms, place, images)
    kept = (found == images).flatten(2).all(dim=2)
    assert bool(kept.any(dim=1).all())
    assert float(kept.float().mean()) < 0.6


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((8, 9, 10), (1, 1, 3), 2),
        ((8, 9, 10), (3, 1, 1), 0),
        ((8, 9, 10), (1, 1, 1), 2),
        ((8, 9, 1), (1, 1, 1), None),
        ((8, 9), (1, 3), None),
    ],
)
def test_slices_lie_across_the_largest_voxels(
    shape: tuple[int, ...], spacing: tuple[float, ...], expected: int | None
) -> None:
    assert through_plane(Grid.default(shape, spacing)) == expected
