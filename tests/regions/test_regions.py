"""Divisions of images into regions, with sizes in voxels and in millimeters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from pydantic import BaseModel
from scipy import ndimage
from torch import Tensor

from voxplain.errors import ConfigError, InputError
from voxplain.image import Grid, Image
from voxplain.io import read_image
from voxplain.preprocess import apply
from voxplain.regions import (
    Blocks,
    Channels,
    LabelMap,
    RegionMap,
    RegionSpec,
    Segments,
    Supervoxels,
    parse_regions,
    scales,
    segment,
)
from voxplain.regions.names import read_names
from voxplain.regions.working import WorkingGrid

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def ball(shape: tuple[int, ...], center: tuple[float, ...], radius: float) -> Tensor:
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    squared_distance = sum((axis - at) ** 2 for axis, at in zip(axes, center, strict=True))
    return torch.from_numpy(squared_distance <= radius**2)


def phantom(shape: tuple[int, ...], channels: int = 1) -> Tensor:
    """A bright ball on a noisy ramp."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 0.2, shape[0]).view(-1, *(1,) * (len(shape) - 1))
    inside = ball(shape, tuple(size * 0.4 for size in shape), min(shape) / 5)
    image = torch.stack([ramp + inside * (1 + channel) for channel in range(channels)])
    return image + 0.02 * torch.randn(image.shape, generator=generator)


def test_painted_writes_every_voxel_and_leaves_the_outside_zero() -> None:
    regions = RegionMap(torch.tensor([[0, 0, -1], [1, 2, 2]]), ("a", "b", "c"))
    assert regions.count == 3
    assert regions.sizes.tolist() == [2, 1, 2]
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert regions.painted(values).tolist() == [[[1, 1, 0], [2, 3, 3]], [[4, 4, 0], [5, 6, 6]]]
    assert regions.painted(regions.sizes.double()).sum() == 2 * 2 + 1 + 2 * 2


def test_a_map_without_regions_or_with_wrong_names_is_refused() -> None:
    with pytest.raises(InputError, match="no region"):
        RegionMap(torch.full((2, 2), -1))
    with pytest.raises(InputError, match="1 names for 2"):
        RegionMap(torch.tensor([0, 1]), ("only",))


def test_compacted_numbers_have_no_gaps() -> None:
    regions = RegionMap.compacted(torch.tensor([[7, 3], [-4, 9]]))
    assert regions.labels.tolist() == [[1, 0], [-1, 2]]


@pytest.mark.parametrize("shape", [(7, 10), (5, 6, 7), (4, 1, 6)])
@pytest.mark.parametrize("size", [1, 3, 0.5, "4mm"])
def test_blocks_are_boxes_and_as_many_as_expected(shape: tuple[int, ...], size: Any) -> None:
    image = torch.zeros(2, *shape)
    spec, spacing = Blocks(size=size), (2.0,) * len(shape)
    regions = segment(spec, image, spacing)
    assert regions.count == spec.expected(shape, 2, spacing)
    assert regions.labels.shape == shape
    boxes = ndimage.find_objects(regions.labels.numpy() + 1)
    volumes = [np.prod([side.stop - side.start for side in box]) for box in boxes]
    assert volumes == regions.sizes.tolist()
    if size == 1:
        assert torch.equal(regions.labels.flatten(), torch.arange(regions.labels.numel()))
    if size == "4mm":
        assert max(boxes[0][0].stop, boxes[0][-1].stop) == 2


def test_channels_are_regions_with_their_names() -> None:
    scan = Image(torch.rand(2, 4, 5), Grid.default((4, 5)), ("flair", "t1"))
    regions = segment("channels", scan.data, None, scan)
    assert regions.names == ("flair", "t1")
    assert regions.labels.shape == (2, 4, 5)
    assert regions.painted(torch.tensor([1.0, 2.0]))[1].unique().tolist() == [2]
    assert Channels().expected((4, 5), 2) == 2


@pytest.mark.parametrize("shape", [(64, 50), (24, 20, 22)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_supervoxels_follow_the_edge_of_a_ball(shape: tuple[int, ...], channels: int) -> None:
    image = phantom(shape, channels)
    regions = segment(Supervoxels(count=60, compactness=0.1), image)
    assert 30 <= regions.count <= 90
    assert regions.sizes.min() > 0
    inside = ball(shape, tuple(size * 0.4 for size in shape), min(shape) / 5)
    share = torch.bincount(regions.labels.flatten(), inside.flatten().double()) / regions.sizes
    mixed = regions.sizes[(share > 0.1) & (share < 0.9)].sum() / regions.sizes.sum()
    assert (share > 0.9).any()
    assert mixed < 0.1


def test_supervoxels_are_the_same_every_time_and_in_one_piece() -> None:
    image = phantom((24, 20, 22))
    first, again = (Supervoxels(count=40).divide(image, None, None).labels for _ in range(2))
    assert torch.equal(first, again)
    pieces = [ndimage.label(first.numpy() == label)[1] for label in range(int(first.max()))]
    assert set(pieces) == {1}


def test_supervoxels_do_not_depend_on_the_scale_of_a_channel() -> None:
    image = phantom((40, 36), 2)
    other = image * torch.tensor([50.0, 0.1]).view(2, 1, 1) - 7
    assert torch.equal(segment(30, image).labels, segment(30, other).labels)


def test_repeated_channels_count_as_one() -> None:
    image = phantom((40, 36))
    assert torch.equal(segment(30, image).labels, segment(30, image.expand(3, -1, -1)).labels)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0), (1.0, 1.2)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_has_the_regions_of_the_slice(
    spacing: tuple[float, float], axis: int
) -> None:
    image = phantom((40, 36), 2)
    thick = [*spacing]
    thick.insert(axis, 5.0)
    flat = segment(Supervoxels(count=30), image, spacing).labels
    volume = segment(Supervoxels(count=30), image.unsqueeze(axis + 1), tuple(thick)).labels
    assert torch.equal(volume, flat.unsqueeze(axis))
    segments = scales(image, spacing)
    slice_ = scales(image.unsqueeze(axis + 1), tuple(thick))
    assert torch.equal(slice_.cells, segments.cells.unsqueeze(axis))


def test_supervoxels_are_as_long_in_millimeters_along_thick_slices() -> None:
    image = torch.rand(1, 60, 60, 12, generator=torch.Generator().manual_seed(1))
    spacing = (1.0, 1.0, 5.0)
    regions = segment(Supervoxels(count=64, compactness=10), image, spacing)
    boxes = ndimage.find_objects(regions.labels.numpy() + 1)
    sides = np.median([[side.stop - side.start for side in box] for box in boxes], axis=0)
    lengths = sides * np.array(spacing)
    assert lengths.max() / lengths.min() < 1.5


def test_supervoxels_have_the_stated_size() -> None:
    spec = Supervoxels(size="10mm", compactness=10)
    assert spec.expected((40, 40, 20), 1, (1.0, 1.0, 2.0)) == 4 * 4 * 4
    regions = segment(spec, phantom((40, 40, 20)), (1.0, 1.0, 2.0))
    assert 48 <= regions.count <= 80
    with pytest.raises(ConfigError, match="pixel size"):
        spec.expected((40, 40, 20), 1)


@pytest.mark.parametrize("shape", [(8, 8), (6, 6, 6), (1, 9), (2, 3, 1)])
def test_pure_noise_on_a_small_grid_still_has_regions(shape: tuple[int, ...]) -> None:
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    spec = Supervoxels(count=10)
    regions = segment(spec, image)
    assert regions.count >= min(4, regions.labels.numel())
    assert regions.labels.shape == shape


def test_a_constant_image_is_divided_as_well() -> None:
    assert segment(9, torch.zeros(1, 30, 30)).count == 9


@pytest.mark.parametrize(("source", "cells"), [((7, 11), (5, 3)), ((4, 7, 11), (2, 5, 3))])
def test_labels_of_another_grid_come_back_without_a_shift(
    source: tuple[int, ...], cells: tuple[int, ...]
) -> None:
    """Each voxel takes the cell that holds its center, so a mirrored image has mirrored labels."""
    grid, labels = WorkingGrid(source, source, cells), torch.arange(np.prod(cells)).view(cells)
    back = grid.back(labels)
    axes = tuple(range(len(source)))
    assert torch.equal(grid.back(labels.flip(axes)), back.flip(axes))
    centers = [(np.arange(n) + 0.5) / n * m for n, m in zip(source, cells, strict=True)]
    assert torch.equal(back, labels[np.ix_(*(center.astype(int) for center in centers))])


@pytest.mark.parametrize("rest", [True, False])
def test_labels_of_an_array_in_their_order_with_names(rest: bool) -> None:
    labels = torch.tensor([[0, 5, 5], [2, -1, 0]])
    spec = LabelMap(labels=labels, names={5: "liver"}, rest=rest)
    regions = segment(spec, torch.rand(3, 2, 3))
    named = ("label 2", "liver", "the rest of the image")
    assert regions.names == named[: 2 + rest]
    last = 2 if rest else -1
    assert regions.labels.tolist() == [[last, 1, 1], [0, -1, last]]
    assert spec.expected((2, 3), 3) == regions.count


def test_labels_may_differ_per_channel() -> None:
    labels = torch.arange(2).view(2, 1, 1).expand(2, 4, 4) + 1
    assert segment(labels, torch.rand(2, 4, 4)).labels.shape == (2, 4, 4)


def write_atlas(folder: Path, affine: Any = AFFINE) -> tuple[Image, Path, np.ndarray]:
    labels = np.zeros((8, 6, 5), np.int16)
    labels[1:4, 1:5, 1:4], labels[5:7, 2:4] = 3, 8
    nibabel.save(nibabel.Nifti1Image(np.random.rand(8, 6, 5), AFFINE), folder / "scan.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "atlas.nii.gz")
    return read_image(folder / "scan.nii.gz"), folder / "atlas.nii.gz", labels


def test_a_label_file_is_moved_to_the_grid_of_the_network(tmp_path: Path) -> None:
    scan, atlas, labels = write_atlas(tmp_path)
    steps = [
        {"kind": "crop", "start": (1, 0, 0), "shape": (7, 6, 5)},
        {"kind": "reorient", "axes": "LPS"},
    ]
    prepared = apply(scan, steps)
    regions = segment(atlas, prepared.data, prepared.grid.spacing, prepared)
    assert regions.names == ("label 3", "label 8", "the rest of the image")
    expected = np.flip(labels[1:], (0, 1))
    assert np.array_equal(regions.labels.numpy() == 0, expected == 3)
    assert np.array_equal(regions.labels.numpy() == 1, expected == 8)
    same = segment(labels, prepared.data, prepared.grid.spacing, prepared)
    assert torch.equal(same.labels, regions.labels)


def test_a_label_file_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    scan, atlas, labels = write_atlas(tmp_path, np.diag([1, 2, 2.5, 1.0]))
    with pytest.raises(InputError, match="another grid"):
        segment(atlas, scan.data, None, scan)
    with pytest.raises(InputError, match="needs an image on its grid"):
        segment(atlas, scan.data)
    with pytest.raises(InputError, match=r"shape \(8, 6, 5\) does not lie"):
        segment(labels, torch.rand(1, 4, 4, 4))
    with pytest.raises(InputError, match="every voxel of it is 0"):
        segment(np.zeros((4, 4), int), torch.rand(1, 4, 4))
    with pytest.raises(InputError, match="fractions"):
        segment(np.full((4, 4), 0.5), torch.rand(1, 4, 4))


def test_a_label_file_is_stated_by_its_content(tmp_path: Path) -> None:
    _, atlas, _ = write_atlas(tmp_path)
    spec = LabelMap(labels=str(atlas))
    written = spec.model_dump_json()
    assert "atlas" not in written
    assert str(tmp_path) not in str(spec.model_dump())
    moved = tmp_path / "elsewhere.nii.gz"
    moved.write_bytes(atlas.read_bytes())
    assert LabelMap(labels=moved).model_dump_json() == written
    moved.write_bytes(b"other")
    assert LabelMap(labels=moved).model_dump_json() != written


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("lut.json", '{"3": "left lung", "10": "heart"}'),
        ("lut.json", '{"left lung": 3, "heart": 10}'),
        ("lut.csv", "label,name\n3,left lung\n10,heart\n"),
        ("lut.csv", 'name;index\n"left lung";3\nheart;10\n'),
        ("lut.tsv", "index\tname\tcolor\n3\tleft lung\t#ff0000\n10\theart\t#00ff00\n"),
        ("lut.txt", "#No. Name R G B A\n3 'left lung' 255 0 0 0\n\n10 heart 0 255 0 0\n"),
        ("lut.label", '# ITK-SNAP\n3 255 0 0 0.5 1 1 "left lung"\n10 0 255 0 1 1 1 "heart"\n'),
    ],
)
def test_names_from_the_tables_of_atlases(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert read_names(tmp_path / file) == {3: "left lung", 10: "heart"}
    labels = torch.tensor([[10, 3]])
    regions = segment(LabelMap(labels=labels, names=tmp_path / file), torch.rand(1, 1, 2))
    assert regions.names == ("left lung", "heart")


def test_a_table_without_names_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lut.csv").write_text("1,2\n")
    (tmp_path / "lut.json").write_text("[1]")
    with pytest.raises(InputError, match="names no label"):
        read_names(tmp_path / "lut.csv")
    with pytest.raises(InputError, match="not a table of label names"):
        read_names(tmp_path / "lut.json")
    with pytest.raises(InputError, match=r"no file gone\.csv"):
        read_names(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("supervoxels", Supervoxels()),
        (12, Supervoxels(count=12)),
        ({"kind": "blocks", "size": 4}, Blocks(size=4)),
        ("channels", Channels()),
        ("atlas_*.nii.gz", LabelMap(labels="atlas_*.nii.gz")),
    ],
)
def test_short_forms(written: Any, expected: Any) -> None:
    class Holder(BaseModel):
        regions: RegionSpec

    assert Holder(regions=written).regions == expected
    assert parse_regions(written) == expected
    assert parse_regions(expected) is expected


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("supervoxel", "did you mean supervoxels"),
        ({"kind": "blobs"}, "blobs"),
        ({"kind": "blocks", "sizes": 3}, r"regions\.blocks\.sizes"),
        (0, "greater than or equal to 1"),
        (True, "regions"),
    ],
)
def test_mistakes_are_named(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_regions(wrong)


@pytest.mark.parametrize("shape", [(60, 44), (26, 22, 24)])
@pytest.mark.parametrize("channels", [1, 2])
def test_segments_at_six_scales_overlap_and_hold_the_ball(
    shape: tuple[int, ...], channels: int
) -> None:
    segments = scales(phantom(shape, channels), (1.0,) * len(shape))
    assert segments.cells.shape == shape
    assert segments.sizes.sum() == np.prod(shape)
    covered = segments.members.T @ np.ones(segments.count)
    present = segments.sizes > 0
    assert covered[present].min() >= 6  # once per scale, more often where dilation overlaps
    assert covered.max() > 6
    inside = ball(shape, tuple(size * 0.4 for size in shape), min(shape) / 5)
    within = segments.members @ segments.sums(inside)
    overlap = within / (segments.members @ segments.sizes + float(inside.sum()) - within)
    assert overlap.max() > 0.4


def test_segments_are_cached_for_the_same_image_only() -> None:
    image = phantom((30, 30))
    first = scales(image)
    assert scales(image.clone()) is first
    assert scales(image + torch.randn(1, 30, 30)) is not first
    assert scales(image, (1.0, 2.0)) is not first


def test_dilation_is_a_ball() -> None:
    from skimage.morphology import ball as footprint

    from voxplain.regions.segments import crops_of

    labels = np.full((15, 15, 15), -1)
    labels[7, 7, 7] = 0
    ((box, inside),) = crops_of(labels, 5)
    assert np.array_equal(inside, footprint(5))
    assert box[0] == slice(2, 13)
    assert Segments.of([(box, inside)], labels.shape).sizes.max() > 500
