"""From a scan on disk through the network's grid to a map on disk, at the same place."""

import nibabel as nib
import numpy as np
import pytest
import torch
from sidecar_example import sidecar

from voxplain.io import read_image, write_map
from voxplain.preprocess import apply

STEPS = [
    {"kind": "crop", "start": [2, 1, 3], "shape": [34, 33, 20]},
    {"kind": "spacing", "size": 1.0},
    {"kind": "reorient", "axes": "RAS"},
    {"kind": "normalize", "mode": "zscore"},
    {"kind": "pad_to_multiple", "multiple": 16},
]
TURN = nib.eulerangles.euler2mat(0.25, -0.2, 0.35)
AFFINE = nib.affines.from_matvec(TURN @ np.diag([-0.9, 1.3, 2.6])[:, [2, 0, 1]], [31, -57, 12])
SHAPE = (36, 37, 26)
LANDMARK = np.array([17.0, 18.0, 13.0])


def blob(grid, world):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    distance = np.square(grid.world(index) - world).sum(axis=-1)
    return np.exp(-distance / (2 * 3.0**2))


@pytest.mark.parametrize("mode", ["value", "mass"])
def test_gradient_of_a_linear_model_lands_on_its_landmark_in_a_second_reader(tmp_path, mode):
    rng = np.random.default_rng(0)
    nib.save(
        nib.Nifti1Image(rng.normal(size=SHAPE).astype(np.float32), AFFINE), tmp_path / "s.nii.gz"
    )
    image = read_image(tmp_path / "s.nii.gz")
    assert np.linalg.det(image.grid.affine) < 0
    world = image.grid.world(LANDMARK)
    seen = apply(image, STEPS)

    weight = torch.from_numpy(blob(seen.grid, world))
    pixels = seen.data.double().requires_grad_()
    (gradient,) = torch.autograd.grad((pixels * weight).sum(), pixels)
    path = write_map(seen.restore(gradient, mode), seen.source_grid, tmp_path / "map", sidecar())

    file = nib.load(path)
    values = file.get_fdata()
    assert values.shape == SHAPE
    center = np.array([np.average(axis, weights=values) for axis in np.indices(SHAPE)])
    np.testing.assert_allclose(center, LANDMARK, atol=0.01)
    np.testing.assert_allclose(nib.affines.apply_affine(file.affine, center), world, atol=0.03)
    peak = np.unravel_index(values.argmax(), SHAPE)
    assert np.abs(peak - LANDMARK).max() <= 0.5
    if mode == "mass":
        assert values.sum() == pytest.approx(float(gradient.sum()), rel=1e-3)
