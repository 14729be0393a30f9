"""The steps of nnU-Net in closed form, and their way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxplain.errors import VoxplainError
from voxplain.image import Grid, Image
from voxplain.preprocess import apply, parse_step
from voxplain.preprocess.nnunet import separate_axis

OBLIQUE = np.array([[1.1, 0.2, -0.3, 4], [-0.1, 0.9, 0.4, -7], [0.2, -0.3, 3.4, 2], [0, 0, 0, 1.0]])


def scan(shape=(12, 10, 8), affine=OBLIQUE, channels=1, seed=0):
    noise = np.random.default_rng(seed).normal(size=(channels, *shape))
    data = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 1, 1, 1)))
    return Image(data.float(), Grid(shape, affine))


def centers(grid):
    """Millimeters of every voxel, ``(3, *shape)``."""
    index = np.stack(
        [*np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), np.ones(grid.shape)]
    )
    return np.einsum("ij,j...->i...", grid.affine, index)[:3]


def resampled(image, **fields):
    return apply(image, [{"kind": "nnunet_resample", **fields}])


class TestTranspose:
    def test_moves_no_voxel_in_the_patient_and_comes_back(self) -> None:
        image = scan()
        turned = apply(image, [{"kind": "transpose", "order": [2, 0, 1]}])
        assert torch.equal(turned.data, image.data.permute(0, 3, 1, 2))
        assert np.allclose(centers(turned.grid), centers(image.grid).transpose(0, 3, 1, 2))
        assert torch.equal(turned.restore(turned.data), image.data)

    def test_the_same_order_leaves_no_trace(self) -> None:
        image = scan()
        assert apply(image, [{"kind": "transpose", "order": [0, 1, 2]}]) is image

    @pytest.mark.parametrize(
        ("order", "words"), [([0, 0, 1], "does not name each axis once"), ([1, 0], "rank: 2")]
    )
    def test_orders_that_do_not_fit(self, order: list[int], words: str) -> None:
        with pytest.raises(VoxplainError, match=words):
            apply(scan(), [{"kind": "transpose", "order": order}])


class TestNormalize:
    def normalized(self, image, *channels):
        return apply(image, [{"kind": "nnunet_normalize", "channels": channels}])

    def test_each_channel_has_its_own_scheme(self) -> None:
        image = scan(channels=4)
        ct = {"scheme": "ct", "lower": -0.2, "upper": 0.3, "mean": 0.1, "deviation": 2.0}
        schemes = [ct, {"scheme": "zscore"}, {"scheme": "rescale"}, {"scheme": "none"}]
        found = self.normalized(image, *schemes).data
        a, b, c, d = image.data
        expected = [(a.clamp(-0.2, 0.3) - 0.1) / 2, (b - b.mean()) / b.std(correction=0)]
        expected += [(c - c.min()) / (c.max() - c.min()), d]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)

    def test_inside_counts_holes_and_leaves_the_rest(self) -> None:
        data = torch.zeros(1, 7, 7, 7)
        data[0, 1:6, 1:6, 1:6] = torch.arange(125).reshape(5, 5, 5) + 1.0
        data[0, 3, 3, 3] = 0  # a hole
        image = Image(data, Grid.default((7, 7, 7), 1))
        found = self.normalized(image, {"scheme": "zscore", "inside": True}).data[0]
        inside = data[0, 1:6, 1:6, 1:6]
        expected = (inside - inside.mean()) / inside.std(correction=0)
        torch.testing.assert_close(found[1:6, 1:6, 1:6], expected)
        found[1:6, 1:6, 1:6] = 0
        assert not found.any()

    def test_intensities_of_the_file_are_known(self) -> None:
        image = scan()
        found = self.normalized(image, {"scheme": "zscore"})
        (value,) = found.source_intensity(float(found.data[0, 3, 4, 5]))
        assert value == pytest.approx(float(image.data[0, 3, 4, 5]), abs=1e-5)

    @pytest.mark.parametrize(
        ("channels", "words"),
        [
            ([{"scheme": "none"}] * 2, "trained on 2 channels and the image has 1"),
            ([{"scheme": "rgb"}], "RGB pictures of 0 to 255"),
            ([{"scheme": "ct"}], "ct needs lower, upper, mean and deviation"),
        ],
    )
    def test_what_does_not_fit(self, channels, words: str) -> None:
        with pytest.raises(VoxplainError, match=words):
            self.normalized(scan(), *channels)


class TestResample:
    def test_slices_one_by_one_and_the_nearest_along_long_voxels(self) -> None:
        image = scan((9, 8, 5), np.diag([1.0, 1.0, 4.0, 1]))
        found = resampled(image, size=(0.75, 1.0, 2.0), order=3)
        assert found.grid.shape == (12, 8, 10)
        for new in range(10):
            plane = image.data[0, :, :, new // 2].double().numpy()
            spline = ndimage.zoom(plane, (12 / 9, 1), order=3, mode="nearest", grid_mode=True)
            expected = np.clip(spline, plane.min(), plane.max())
            assert np.allclose(found.data[0, :, :, new], expected, atol=1e-5)

    def test_voxels_that_are_nearly_cubes_go_together(self) -> None:
        image = scan((9, 8, 7), np.diag([1.0, 1.0, 1.5, 1]))
        found = resampled(image, size=(1.2, 0.9, 1.0), order=1)
        factors = [n / m for n, m in zip(found.grid.shape, image.grid.shape, strict=True)]
        expected = ndimage.zoom(
            image.data[0].double().numpy(), factors, order=1, mode="nearest", grid_mode=True
        )
        assert np.allclose(found.data[0], expected, atol=1e-5)

    def test_voxels_stay_in_the_patient(self) -> None:
        """Half a voxel of shift would be seen in a ramp of millimeters."""
        image = scan((14, 12, 10), np.array(OBLIQUE) * [1, 1, 0.4, 1])
        ramp = torch.from_numpy(centers(image.grid)[0][None]).float()
        ramp_image = Image(ramp, image.grid)
        found = resampled(ramp_image, size=(1.4, 0.8, 1.0), order=1)
        expected = torch.from_numpy(centers(found.grid)[0]).float()
        inner = (slice(2, -2),) * 3
        torch.testing.assert_close(found.data[0][inner], expected[inner], atol=1e-3, rtol=0)
        back = found.restore(expected[None])[0]
        torch.testing.assert_close(back[inner], ramp[0][inner], atol=1e-3, rtol=0)

    def test_the_way_back_is_the_nearest_along_long_voxels(self) -> None:
        image = scan((8, 8, 6), np.diag([1.0, 1.0, 4.0, 1]))
        found = resampled(image, size=(1.0, 1.0, 2.0))
        outputs = torch.randn(2, *found.grid.shape)
        starts = torch.floor(2 * (torch.arange(6) + 0.5) - 0.5 + 0.5).long()
        assert torch.equal(found.restore(outputs), outputs[..., starts])
        assert found.outputs_first
        assert not image.outputs_first

    def test_mass_is_kept_and_labels_return(self) -> None:
        image = scan((12, 10, 8), np.diag([1.0, 1.2, 2.0, 1]))
        found = resampled(image, size=(0.8, 1.0, 1.0))
        values = torch.randn(1, *found.grid.shape)
        kept = found.restore(values, "mass").sum()
        torch.testing.assert_close(kept, values.sum(), atol=1e-3, rtol=1e-4)
        labels = torch.zeros(12, 10, 8)
        labels[3:9, 2:7, 2:6] = 3
        assert torch.equal(found.restore(found.project(labels)[None], "label")[0], labels)

    def test_a_size_that_leaves_the_number_of_voxels_changes_nothing(self) -> None:
        image = scan()
        assert resampled(image, size=(None, None, None)) is image

    def test_spacing_counts_as_in_the_header(self) -> None:
        """33 voxels of 1.5 mm are 49.5 of 1 mm, which rounds to the even number."""
        image = scan((33, 4, 4), np.diag([1.5, 1, 1, 1]))
        assert resampled(image, size=(1.0, 1.0, 1.0)).grid.shape == (50, 4, 4)
        image = scan((35, 4, 4), np.diag([1.5, 1, 1, 1]))
        assert resampled(image, size=(1.0, 1.0, 1.0)).grid.shape == (52, 4, 4)

    def test_pictures_are_refused(self) -> None:
        with pytest.raises(VoxplainError, match="is no volume"):
            resampled(Image(torch.zeros(1, 4, 4), Grid.default((4, 4), 1)), size=(1, 1, 1))

    @pytest.mark.parametrize(
        ("forced", "current", "new", "axis"),
        [
            (None, (1, 1, 4), (1, 1, 1), 2),
            (None, (1, 1, 1), (5, 1, 1), 0),
            (None, (1, 1, 3), (1, 1, 1), None),  # three times as long is not enough
            (None, (0.2, 1, 1), (1, 1, 1), None),  # two long axes
            (False, (1, 1, 9), (1, 1, 1), None),
            (True, (1, 1.5, 1), (1, 1, 1), 1),
            (True, (1, 1, 1), (1, 1, 4), None),
        ],
    )
    def test_the_axis_of_long_voxels(self, forced, current, new, axis) -> None:
        assert separate_axis(forced, current, new) == axis


def test_values_below_zero_are_foreground_where_it_is_all_that_is_not_zero() -> None:
    data = torch.zeros(1, 6, 6, 6)
    data[0, 2, 3, 4], data[0, 3, 3, 4] = -5, 2
    image = Image(data, Grid.default((6, 6, 6), 1))
    step = {"kind": "crop_foreground", "threshold": "nonzero"}
    assert apply(image, [step]).grid.shape == (2, 1, 1)
    assert parse_step(parse_step(step).model_dump(mode="json")) == parse_step(step)
    with pytest.raises(VoxplainError, match="no voxel is other than 0"):
        apply(Image(torch.zeros(1, 2, 2), Grid.default((2, 2), 1)), [step])
