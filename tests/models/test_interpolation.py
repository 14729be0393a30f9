"""Layers at single voxels: the same values as of maps that are placed whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from voxplain.models.geometry import LayerGeometry, interpolation, place


@pytest.mark.parametrize(
    ("start", "stride", "cells", "shape"),
    [
        ((0.5, 0.5), (2.0, 2.0), (6, 5), (12, 10)),
        ((-3.0, 7.5), (4.0, 16.0), (5, 2), (13, 30)),
        ((0.0, 1.5, 8.0), (1.0, 4.0, -2.0), (7, 3, 5), (7, 12, 9)),
        ((3.0, 0.0, 2.0), (1.0, 1.0, 1.0), (1, 6, 1), (5, 6, 5)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (4, 5, 6), (4, 5, 6)),
    ],
)
def test_a_product_with_the_matrix_places_a_map(
    start: tuple[float, ...],
    stride: tuple[float, ...],
    cells: tuple[int, ...],
    shape: tuple[int, ...],
) -> None:
    geometry = LayerGeometry(start, stride, cells, exact=True)
    draw = torch.Generator().manual_seed(0)
    layer_map = torch.randn(3, *cells, generator=draw)
    voxels = torch.randperm(int(np.prod(shape)), generator=draw)[:40].numpy()
    covered = [slice(1, size) for size in shape]
    expected = torch.zeros(3, *shape)
    box = (slice(None), *covered)
    expected[box] = place(layer_map, geometry, shape)[box]
    matrix = interpolation(geometry, shape, voxels, covered)
    assert matrix.shape == (40, np.prod(cells))
    assert (matrix.data != 0).all()
    found = matrix @ layer_map.flatten(1).numpy().T
    np.testing.assert_allclose(found.T, expected.flatten(1)[:, voxels], atol=1e-6)


def test_cells_that_do_not_count_cannot_spoil_a_value() -> None:
    geometry = LayerGeometry((0.0, 0.0), (2.0, 2.0), (3, 3), exact=True)
    layer_map = torch.full((1, 3, 3), torch.inf)
    layer_map[0, 1, 1] = 5.0
    voxel = np.array([2 * 5 + 2])
    matrix = interpolation(geometry, (5, 5), voxel, [slice(0, 5), slice(0, 5)])
    assert (matrix @ layer_map.flatten(1).numpy().T).tolist() == [[5.0]]
