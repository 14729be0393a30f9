"""Segments and supervoxels of real images follow the outline of a tumor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from voxplain.image import Image
from voxplain.io import read_image, read_mask
from voxplain.regions import Segments, Supervoxels, scales, segment

CASE = "brats2mm/Brats18_CBICA_AMH_1/Brats18_CBICA_AMH_1"


@pytest.fixture
def tumor(real_data: Path) -> tuple[Image, torch.Tensor]:
    scan = read_image(
        [real_data / f"{CASE}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2")]
    )
    return scan, read_mask(real_data / f"{CASE}_seg.nii.gz", scan.grid) > 0


def best_dice(segments: Segments, inside: torch.Tensor) -> float:
    within = segments.members @ segments.sums(inside)
    sizes = segments.members @ segments.sizes
    return float((2 * within / (sizes + float(inside.sum()))).max())


@pytest.mark.slow
def test_some_segment_of_the_volume_is_nearly_the_tumor(tumor: tuple[Image, torch.Tensor]) -> None:
    scan, inside = tumor
    assert best_dice(scales(scan.data, scan.grid.spacing), inside) > 0.75


def test_some_segment_of_the_slice_is_nearly_the_tumor(tumor: tuple[Image, torch.Tensor]) -> None:
    scan, inside = tumor
    at = int(inside.sum(dim=(0, 1)).argmax())
    spacing = scan.grid.spacing[:2]
    assert best_dice(scales(scan.data[..., at], spacing), inside[..., at]) > 0.8


def test_most_supervoxels_lie_inside_or_outside_the_tumor(
    tumor: tuple[Image, torch.Tensor],
) -> None:
    scan, inside = tumor
    regions = segment(Supervoxels(count=400), scan.data, scan.grid.spacing, scan)
    share = torch.bincount(regions.labels.flatten(), inside.flatten().double()) / regions.sizes
    mostly = torch.where(share > 0.5, share, 1 - share)
    assert float((mostly * regions.sizes).sum() / regions.sizes.sum()) > 0.97
    assert int((share > 0.9).sum()) >= 5
    assert 300 <= regions.count <= 500
