"""Blended outputs on other grids than the image, paddings and overlaps, against MONAI."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.models.windows import Window

inferers = pytest.importorskip("monai.inferers")
every_mode = pytest.mark.parametrize("mode", ["gaussian", "constant"])


def monai(network: nn.Module, image: Tensor, size: tuple[int, ...], **options: Any) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(
            inferers.sliding_window_inference(image, size, 3, network, **options)
        )


def same_resolution(rank: int) -> nn.Module:
    """A network whose output depends on where its input is cut, also far from the cut."""
    conv = getattr(nn, f"Conv{rank}d")
    torch.manual_seed(rank)
    norm = getattr(nn, f"InstanceNorm{rank}d")(3)
    return nn.Sequential(conv(2, 3, 3, padding=1), norm, nn.Tanh(), conv(3, 2, 1)).eval()


def at_resolution(kind: str, rank: int) -> nn.Module:
    """The same, with an output at another resolution."""
    conv, turned = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
    torch.manual_seed(rank)
    last = {
        "half": lambda: [conv(2, 2, 3, 2, 1)],
        "pooled": lambda: [getattr(nn, f"AvgPool{rank}d")(2)],
        "third": lambda: [conv(2, 2, 3, 3)],
        "one axis": lambda: [conv(2, 2, (3, *(1,) * (rank - 1)), (2, *(1,) * (rank - 1)),
                                  (1, *(0,) * (rank - 1)))],
        "double": lambda: [turned(2, 2, 2, 2)],
        "upsampled": lambda: [nn.Upsample(scale_factor=2), conv(2, 2, 3, padding=1)],
    }[kind]  # fmt: skip
    return nn.Sequential(same_resolution(rank), *last()).eval()


@every_mode
@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((17, 13), (8, 6), (0.5, 0.0)),
        ((5, 21), (8, 8), (0.25, 0.6)),
        ((11, 9, 6), (4, 6, 10), (0.25, 0.5, 0.7)),
        ((18, 5, 13), (8, 7, 6), (0.0, 0.9, 0.34)),
    ],
)
def test_overlap_of_each_axis_and_padding_value(
    shape: tuple[int, ...], size: tuple[int, ...], overlap: tuple[float, ...], mode: str
) -> None:
    network, image = same_resolution(len(shape)), torch.randn(2, 2, *shape)
    for value in (0.0, -1.7):
        expected = monai(network, image, size, overlap=overlap, mode=mode, cval=value)
        window = {"size": size, "overlap": overlap, "blend": mode, "padding_value": value}
        found = Model(network, window=window).output(image)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@every_mode
@pytest.mark.parametrize("kind", ["half", "pooled", "third", "one axis", "double", "upsampled"])
@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((18, 24), (12, 6), (0.5, 0.0)),
        ((5, 18), (12, 12), 0.5),  # the halves of the padding lie between two cells
        ((12, 3, 18), (6, 12, 12), (0.0, 0.5, 0.5)),
    ],
)
def test_outputs_of_another_resolution(
    shape: tuple[int, ...], size: tuple[int, ...], overlap: Any, kind: str, mode: str
) -> None:
    network, image = at_resolution(kind, len(shape)), torch.randn(1, 2, *shape)
    for padding in ("constant", "replicate"):
        expected = monai(network, image, size, overlap=overlap, mode=mode, padding_mode=padding)
        window = {"size": size, "overlap": overlap, "blend": mode, "padding": padding}
        found = Model(network, window={**window, "batch": 2}).output(image)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@every_mode
@pytest.mark.parametrize("chosen", [1, "coarse"])
def test_one_of_several_outputs(chosen: Any, mode: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = same_resolution(2), at_resolution("half", 2)

        def forward(self, image: Tensor) -> Any:
            parts = {"all": self.fine(image), "coarse": self.coarse(image)}
            return parts if chosen == "coarse" else tuple(parts.values())

    network, image = Two().eval(), torch.randn(1, 2, 16, 20)
    expected = monai(network.coarse, image, (8, 8), overlap=0.5, mode=mode)
    together = inferers.sliding_window_inference(image, (8, 8), 1, network, 0.5, mode=mode)
    torch.testing.assert_close(together[chosen], expected)
    model = Model(network, head=chosen, window={"size": 8, "blend": mode})
    torch.testing.assert_close(model.output(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("halo", [0, 3])
def test_strided_windows_that_see_all_they_need_give_the_whole(rank: int, halo: int) -> None:
    """Odd sizes and a stride without padding, where MONAI moves the cells."""
    conv = getattr(nn, f"Conv{rank}d")
    torch.manual_seed(0)
    layers = [conv(1, 2, 3), nn.Tanh(), conv(2, 2, 3, 2)]
    if halo:  # padded, so that only what lies inside the halo is that of the whole
        layers = [conv(1, 2, 3, padding=1), nn.Tanh(), conv(2, 2, 3, 2, 1)]
    network, image = nn.Sequential(*layers).eval(), torch.randn(1, 1, *(21, 17, 19)[:rank])
    with torch.no_grad():
        whole = network(image)
    for blend in ("gaussian", "constant"):
        window = {"size": 13, "halo": halo, "overlap": 0.4, "blend": blend}
        model = Model(network, window=window)
        found, layout = model.output(image), model.layout(image[0])
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
        assert layout is not None
        assert layout.place == Model(network).place(image)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_weights_of_all_windows_sum_to_one_at_a_cell(stride: int) -> None:
    network = nn.Conv2d(1, 1, stride, stride)
    for blend, halo in (("gaussian", 0), ("constant", 0), ("gaussian", 2)):
        overlap = 0.25 if halo else 0.5  # steps of 6 voxels
        window = {"size": 12, "halo": halo, "blend": blend, "overlap": overlap}
        model = Model(network, window=window)
        layout = model.layout(torch.zeros(1, 24, 18))
        assert layout is not None
        tiles = layout.outputs
        total = torch.zeros(tiles.grid, dtype=torch.float64)
        for position in tiles.positions:
            total[tiles.region(position)] += tiles.weight(position)
        assert tiles.grid == (24 // stride, 18 // stride)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("size", "shape", "overlap", "blend", "words"),
    [
        (10, 30, 0.3, "gaussian", r"voxel 7 of axis 0.* every 2 voxels.*take overlap 0.4 .* of 6"),
        (10, 23, 0.4, "gaussian", "voxel 13 of axis 0.*pad the image along it from 23 to 24 vox"),
        (10, 25, 0.5, "nnunet", "take blend gaussian or constant"),
        (2, 10, 0.5, "constant", "take overlap 0 along it, a step of 2"),
    ],
)
def test_windows_between_cells_are_refused_with_what_works(
    size: int, shape: int, overlap: float, blend: str, words: str
) -> None:
    network, image = nn.AvgPool2d(2), torch.randn(1, 1, shape, size)
    window = {"size": size, "overlap": overlap, "blend": blend}
    with pytest.raises(ConfigError, match=words):
        Model(network, window=window).output(image)


def test_what_the_refusal_names_works() -> None:
    """For every size and overlap the named overlap, and then the named length, is taken."""
    refused = 0
    for size in range(6, 16):
        for overlap in (0.1, 0.3, 0.55, 0.8):
            shape = 3 * size + 1
            for _ in range(3):
                model = Model(nn.AvgPool2d(3), window={"size": size, "overlap": overlap})
                try:
                    model.layout(torch.zeros(1, shape, size))
                except ConfigError as error:
                    refused += 1
                    text = str(error)
                    if "overlap" in text:
                        overlap = float(text.split("overlap ")[1].split(" ")[0])
                    else:
                        shape = int(text.split(" to ")[1].split(" ")[0])
                else:
                    break
            else:
                pytest.fail(f"{size} {overlap} {shape}")
    assert refused > 40


def test_a_halo_that_leaves_less_than_a_cell_is_refused() -> None:
    model = Model(nn.AvgPool2d(4), window={"size": 8, "halo": 3})
    with pytest.raises(ConfigError, match="at least 4 voxels inside their halo"):
        model.output(torch.zeros(1, 1, 16, 8))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"overlap": [0.5, 1.0]}, "at least 0 and less than 1, and this is 1.0"),
        ({"overlap": [-0.5, 0.2]}, "at least 0 and less than 1, and this is -0.5"),
        ({"overlap": math.nan}, "at least 0 and less than 1"),
        ({"overlap": []}, r"\[\] should be a valid number"),
        ({"overlap": "much"}, "'much' should be a valid number"),
        ({"overlap": True}, "True should be a valid number"),
        ({"padding_value": math.inf}, "finite"),
        ({"padding_value": 1, "padding": "reflect"}, "padding_value is for padding: constant"),
    ],
)
def test_wrong_overlaps_and_padding_values(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        Window.model_validate({"size": 8, **wrong})
    assert caught.value.error_count() == 1


def test_the_number_of_overlaps_is_that_of_the_axes() -> None:
    with pytest.raises(ConfigError, match=r"overlap has 3 values, and the image has 2"):
        Window(size=8, overlap=(0.5, 0.5, 0.5)).layout((16, 16))
    with pytest.raises(ValidationError, match=r"overlap has 3 values, and the size has 2"):
        Window(size=(8, 8), overlap=(0.5, 0.5, 0.5))
