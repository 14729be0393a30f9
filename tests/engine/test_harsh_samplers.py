"""Points, masks and regions of images with odd sizes, and shares that are not one half."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from harsh import SHAPES, SPACINGS, harsh_classifier, harsh_images, harsh_references
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import Context
from voxplain.engine.gradients.path_samplers import BlurPath
from voxplain.engine.gradients.refined_paths import RefinedPath
from voxplain.engine.gradients.samplers import PointSequence, RandomPathPoint
from voxplain.engine.identity import image_key
from voxplain.engine.masks.dense import Grids
from voxplain.engine.masks.samplers import RandomGrids
from voxplain.engine.stream_io import StreamInput
from voxplain.models.model import Model
from voxplain.regions import parse_regions, segment

ranks = pytest.mark.parametrize("rank", [2, 3])


def item_of(rank: int) -> StreamInput:
    """One harsh image as streams see it."""
    image = harsh_images(rank)[0].double()
    return StreamInput(image, 0, image_key(image))


def grids_of(rank: int, samples: int, cells: int, keep: float, spaced: bool = False) -> Grids:
    """Random grids on a harsh image."""
    item = item_of(rank)
    spacing = SPACINGS[rank] if spaced else None
    context = Context(Model(harsh_classifier(rank)), item.image[None], spacing)
    masks = RandomGrids(samples, cells, keep).masks(item, context)
    assert isinstance(masks, Grids)
    return masks


@ranks
@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_random_grids_keep_the_share_that_is_wanted(rank: int, keep: float) -> None:
    grids = grids_of(rank, 400, 3, keep)
    weights = torch.stack([grids.weights(index, torch.zeros(1)) for index in range(len(grids))])
    assert float(weights.mean()) == pytest.approx(keep, abs=0.03)
    assert weights.shape == (400, *SHAPES[rank])


@ranks
def test_cells_of_random_grids_have_one_size_in_millimeters(rank: int) -> None:
    """The axis that is shortest in mm has as many cells as stated; the others have more."""
    lengths = [side * step for side, step in zip(SHAPES[rank], SPACINGS[rank], strict=True)]
    for spaced, sizes in ((False, [float(side) for side in SHAPES[rank]]), (True, lengths)):
        cells = grids_of(rank, 1, 2, 0.5, spaced).grids.shape[1:]
        cell = min(sizes) / 2
        wanted = [round(size / cell) for size in sizes]
        assert list(cells) == [min(n, side) for n, side in zip(wanted, SHAPES[rank], strict=True)]


@ranks
def test_widths_of_the_blur_path_fall_with_the_square(rank: int) -> None:
    item, steps, widest = item_of(rank), 4, 0.4
    points = BlurPath(steps, widest).route(item).draw(range(steps + 1)).inputs
    for index, point in enumerate(points):
        sigma = widest * min(SHAPES[rank]) * (1 - index / steps) ** 2
        for found, channel in zip(point, item.image, strict=True):
            expected = gaussian_filter(channel.numpy(), sigma, mode="nearest", truncate=6)
            assert (found - torch.from_numpy(expected)).abs().max() < 1e-5


@ranks
def test_blocks_have_one_size_but_for_the_last(rank: int) -> None:
    image = harsh_images(rank)[0]
    labels = segment(parse_regions({"kind": "blocks", "size": 3}), image).labels
    for axis, side in enumerate(SHAPES[rank]):
        first = labels.movedim(axis, 0).flatten(1)[:, 0]
        runs = torch.unique_consecutive(first, return_counts=True)[1].tolist()
        assert runs == [3] * (side // 3) + ([side % 3] if side % 3 else [])


@ranks
def test_the_clean_image_is_that_without_noise(rank: int) -> None:
    item = item_of(rank)
    noisy = StreamInput(item.image + 1, 0, item.key, source=item.image)
    assert torch.equal(noisy.clean, item.image)
    assert torch.equal(item.clean, item.image)


@ranks
def test_random_points_lie_between_a_reference_and_the_noisy_image(rank: int) -> None:
    """The same points in any batches, each with a position, a reference and noise of its own."""
    references = harsh_references(rank).double()
    item = replace(item_of(rank), references=references)
    route = RandomPathPoint(40, sigma=0.3).route(item)
    batch = route.draw(range(40))
    assert batch.start is not None
    assert batch.end is not None
    ways = (batch.end - batch.start).flatten(1)
    along = ((batch.inputs - batch.start).flatten(1) * ways).sum(1) / ways.square().sum(1)
    view = (-1, *(1,) * (rank + 1))
    torch.testing.assert_close(batch.inputs, torch.lerp(batch.start, batch.end, along.view(view)))
    assert float(along.min()) > 0
    assert float(along.max()) < 1
    assert len(along.unique()) == 40
    assert torch.equal(batch.start, references[list(batch.origins)])
    assert len(set(batch.origins)) > 5
    noise = (batch.end - item.image).flatten(1)
    assert len(noise.unique(dim=0)) == 40
    parts = [route.draw(range(first, first + 8)).inputs for first in range(0, 40, 8)]
    assert torch.equal(torch.cat(parts), batch.inputs)


class SixthPower(nn.Module):
    """Scores ``(B, 1)``: scale sum (x - 0.25)^6."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * (images - 0.25).pow(6).flatten(1).sum(1, keepdim=True)


@ranks
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_refined_path_ends_with_the_first_trapezoid_rule_that_is_complete(
    rank: int, scale: float
) -> None:
    """Of the sixth power, the trapezoid rule of n pieces is off by 5 / (2 n^2): 16 are enough."""
    image = harsh_images(rank)[:1].double()
    method = {"name": "integrated_gradients", "steps": "auto", "baseline": 0.25}
    actual = explain(SixthPower(scale), image.float(), method, 0)
    found = actual["integrated_gradients"]
    assert found.stats.passes == 17
    assert found.stats.completeness is not None
    assert found.stats.completeness[0] == pytest.approx(5 / (2 * 16**2), rel=0.05)


@ranks
def test_halving_the_pieces_of_a_path_gives_the_nodes_of_the_finer_rule(rank: int) -> None:
    item = item_of(rank)
    points: PointSequence | None = RefinedPath(baseline=0.25, first=4, most=16).route(item)
    nodes, weights = [], []
    while points is not None:
        batch = points.draw(range(points.count))
        assert batch.along is not None
        nodes, weights = [*nodes, batch.along], [*weights, batch.weights]
        points = points.finer() if points.finer is not None else None
    order = torch.cat(nodes).argsort()
    expected = torch.ones(17, dtype=torch.float64)
    expected[[0, -1]] = 0.5
    torch.testing.assert_close(torch.cat(nodes)[order], torch.linspace(0, 1, 17).double())
    assert torch.equal(torch.cat(weights)[order], expected)


@ranks
def test_a_blurred_baseline_mixes_no_channels(rank: int) -> None:
    image = harsh_images(rank)[0].double()
    together = baseline_image("blur", image)
    for channel, blurred in zip(image, together, strict=True):
        assert torch.equal(baseline_image("blur", channel[None])[0], blurred)
