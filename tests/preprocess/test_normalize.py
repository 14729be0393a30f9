"""Intensities: the numbers of each mode, and the way back to the source's."""

import pytest
import torch

from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.image import Image
from voxplain.preprocess import apply

GENERATOR = torch.Generator().manual_seed(5)
VALUES = torch.randn(3, 12, 13, dtype=torch.float64, generator=GENERATOR) * 40 + 100
MODES = [
    {"mode": "zscore"},
    {"mode": "minmax", "output": [-1, 1]},
    {"mode": "percentile", "percentiles": [2, 98], "clip": False},
    {"mode": "hu_window", "window": [-1000, 400], "clip": False},
    {"mode": "scale", "subtract": [1, 2, 3], "divide": [2, 3, 4]},
    {"mode": "scale", "divide": "maximum"},
    {"mode": "zscore", "per_channel": False},
]


def normalized(data, **options):
    return apply(Image.from_array(data), [{"kind": "normalize", **options}])


@pytest.mark.parametrize("options", MODES)
def test_source_intensity_undoes_the_step_for_every_voxel(options):
    image = normalized(VALUES, **options)
    assert not torch.allclose(image.data, VALUES)
    for channel in range(3):
        value = float(image.data[channel, 4, 5])
        assert image.source_intensity(value)[channel] == pytest.approx(float(VALUES[channel, 4, 5]))


def test_two_steps_in_a_row_are_undone_together():
    image = apply(
        Image.from_array(VALUES), [{"kind": "normalize", **options} for options in MODES[:5]]
    )
    for channel in range(3):
        value = float(image.data[channel, 0, 0])
        assert image.source_intensity(value)[channel] == pytest.approx(float(VALUES[channel, 0, 0]))


def test_zscore_in_the_foreground_leaves_the_background_at_zero():
    data = VALUES.clone()
    data[:, :, :6] = 0
    image = normalized(data, mode="zscore", foreground=True)
    assert not image.data[:, :, :6].any()
    inside = image.data[:, :, 6:]
    assert torch.allclose(inside.mean(dim=(1, 2)), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(inside.std(dim=(1, 2), correction=0), torch.ones(3).double())
    means = data[:, :, 6:].mean(dim=(1, 2)).tolist()
    assert image.source_intensity(0) == pytest.approx(means)


def test_a_zero_after_a_lung_window_stands_for_its_lower_end():
    image = normalized(
        torch.tensor([[[-2000.0, -1000, -300, 400, 3000]]]), mode="hu_window", window=[-1000, 400]
    )
    assert image.data.flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert image.source_intensity(0) == pytest.approx([-1000])
    assert image.source_intensity(0.5) == pytest.approx([-300])


def test_percentiles_go_to_the_ends_and_the_rest_is_cut():
    data = torch.arange(1001.0)[None, None]
    image = normalized(data, mode="percentile", percentiles=[10, 90])
    assert float(image.data[0, 0, 100]) == pytest.approx(0)
    assert float(image.data[0, 0, 900]) == pytest.approx(1)
    assert image.data.min() == 0
    assert image.data.max() == 1


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"mode": "minmax"}, (0, 100)),
        ({"mode": "percentile", "percentiles": [10, 70]}, (10, 70)),
        ({"mode": "hu_window", "window": [20, 60]}, (20, 60)),
    ],
)
def test_the_ends_go_to_any_output_range(options, ends):
    values = torch.arange(101, dtype=torch.float64).view(1, 1, -1)
    low, high = (float(end) for end in ends)
    image = normalized(values, output=[-1, 3], **options)
    expected = (-1 + 4 * (values - low) / (high - low)).clamp(-1, 3)
    torch.testing.assert_close(image.data, expected)
    assert image.source_intensity(1.0) == pytest.approx([(low + high) / 2])


def test_constant_channel_and_empty_foreground_warn_and_stay_finite():
    with pytest.warns(VoxplainWarning, match="channel 0 is constant"):
        assert not normalized(torch.full((1, 4, 4), 7.0)).data.any()
    with pytest.warns(VoxplainWarning, match="has no foreground"):
        assert not normalized(torch.zeros(1, 4, 4), foreground=True).data.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "hu_window"}, "needs a window"),
        ({"mode": "hu_window", "window": [400, -1000]}, "must grow"),
        ({"mode": "scale", "divide": 0}, "cannot be 0"),
        ({"mode": "scale", "divide": [1.0, 2.0]}, "2 values for 3 channels"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        normalized(VALUES, **options)
