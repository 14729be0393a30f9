from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import voxplain
from voxplain.errors import ConfigError, ModelError
from voxplain.io import read_image
from voxplain.preprocess import apply
from voxplain.zoo import UNet, unet, unet2d, unet3d

WEIGHTS = Path(voxplain.__file__).parent / "data" / "demo_unet3d.safetensors"
LEVELS = ["enc1", "enc2", "bottleneck", "dec2", "dec1", "head"]


def image(rank: int, size: int = 12, channels: int = 1, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, *range(size, size + rank))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize("pool", ["average", "max"])
def test_any_rank_channels_classes_and_odd_shapes(rank: int, norm: str, pool: str) -> None:
    network = unet(rank, 2, 3, (3, 4, 5), norm=norm, pool=pool).double().eval()
    x = image(rank, channels=2, batch=2)
    y = network(x)
    assert y.shape == (2, 3, *x.shape[2:])
    assert y.std() > 0.01
    alone = torch.cat([network(x[:1]), network(x[1:])])
    torch.testing.assert_close(y, alone, rtol=1e-10, atol=1e-10)


def test_module_names_are_the_levels() -> None:
    network = unet3d()
    assert [name for name in dict(network.named_children()) if "pool" not in name] == LEVELS
    deeper = dict(unet2d(widths=(2, 3, 4, 5)).named_children())
    assert {"enc3", "pool3", "bottleneck", "dec3"} <= deeper.keys()


@pytest.mark.parametrize("pool", ["average", "max"])
def test_one_slice_volume_equals_the_image(pool: str) -> None:
    flat = unet2d(2, 3, (3, 4, 5), pool=pool).double().eval()
    deep = unet3d(2, 3, (3, 4, 5), pool=pool).double().eval()
    state = {
        # A lone slice meets only the middle plane of each kernel: its neighbors are padding.
        name: _middle_plane(value, flat.state_dict()[name])
        for name, value in deep.state_dict().items()
    }
    deep.load_state_dict(state)
    x = image(2, channels=2)
    torch.testing.assert_close(deep(x[..., None])[..., 0], flat(x), rtol=1e-12, atol=1e-12)


def _middle_plane(kernel: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
    filled = torch.randn_like(kernel)
    if kernel.ndim < 2:
        return plane
    filled[..., kernel.shape[-1] // 2] = plane
    return filled


def test_the_forward_is_the_published_graph() -> None:
    network = unet(2, 1, 2, (3, 4)).double().eval()
    x = image(2)
    fine = nn.Sequential(*network.enc1)(x)
    coarse = network.bottleneck(network.pool1(fine))
    raised = nn.functional.interpolate(network.dec1.narrow(coarse), scale_factor=2, mode="bilinear")
    joined = torch.cat([raised[..., : x.shape[2], : x.shape[3]], fine], dim=1)
    torch.testing.assert_close(network(x), network.head(network.dec1.block(joined)))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_shift_by_the_coarsest_stride_shifts_the_output(rank: int) -> None:
    network = unet(rank, 1, 2, (2, 3, 4)).double().eval()
    x = torch.zeros((1, 1) + (68,) * rank, dtype=torch.float64)
    x[(0, 0) + (32,) * rank] = 1.0  # farther from every border than the network sees
    axes = tuple(range(2, 2 + rank))
    moved = network(x.roll((4,) * rank, dims=axes))
    torch.testing.assert_close(moved, network(x).roll((4,) * rank, dims=axes))


def test_a_network_can_be_sent_to_another_process() -> None:
    network = unet3d(pool="max").eval()
    x = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(x), network(x))


def test_he_initialization_keeps_the_signal() -> None:
    torch.manual_seed(0)
    network = unet3d(widths=(16, 32, 64)).eval()
    features = network.bottleneck(network.pool2(network.enc2(network.pool1(network.enc1(
        torch.randn(1, 1, 32, 32, 32)
    )))))  # fmt: skip
    assert 0.05 < features.pow(2).mean() < 5


def test_gradients_have_no_checkerboard() -> None:
    """Averaged over random weights, the gradient of the mean logit is even over pooling cells."""
    torch.manual_seed(0)
    total = torch.zeros(24, 24, dtype=torch.float64)
    for _ in range(40):
        x = torch.randn(4, 1, 24, 24, dtype=torch.float64, requires_grad=True)
        y = unet2d(classes=1, widths=(4, 6, 8)).double()(x)
        total += torch.autograd.grad(y[..., 4:-4, 4:-4].sum(), x)[0].abs().sum(dim=(0, 1))
    inner = total[8:16, 8:16]
    phases = torch.stack([inner[a::2, b::2].mean() for a in (0, 1) for b in (0, 1)])
    assert phases.std() / phases.mean() < 0.1


def test_the_message_of_a_wrong_input() -> None:
    with pytest.raises(ModelError, match=r"3-D U-Net takes \(B, 1, \*spatial\).*\(1, 1, 8, 8\)"):
        unet3d()(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ModelError, match=r"\(B, 4, \*spatial\)"):
        unet2d(4)(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 4}, "1, 2 or 3 spatial axes, not 4"),
        ({"rank": 2, "widths": (8,)}, "a level and a bottleneck"),
        ({"rank": 2, "classes": 0}, "classes=0"),
        ({"rank": 2, "norm": "bacth"}, "did you mean batch"),
        ({"rank": 2, "pool": "mean"}, "did you mean max"),
    ],
)
def test_the_message_of_a_wrong_argument(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unet(**arguments)


def demo_network() -> UNet:
    network = unet3d().eval()
    network.load_state_dict(load_file(WEIGHTS))
    return network


def test_demo_weights_fit_the_defaults_and_are_small() -> None:
    assert WEIGHTS.stat().st_size < 1_500_000
    assert all(value.dtype == torch.float32 for value in demo_network().state_dict().values())


def test_demo_network_finds_the_tissues_of_the_template() -> None:
    """Reads the tissue maps a second time, without the code that made the training labels."""
    folder = Path(pytest.importorskip("nilearn").__file__).parent / "datasets" / "data"
    names = [f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz" for kind in ("gm", "wm")]
    gray, white = (read_image(folder / name).data[0] for name in names)
    image = apply(
        read_image(folder / names[0].replace("_gm_", "_t1_")),
        [
            {"kind": "spacing", "size": 2.0},
            {"kind": "crop_foreground", "margin": 2},
            {"kind": "pad_to_multiple", "multiple": 4},
            {"kind": "normalize", "mode": "minmax"},
        ],
    )
    with torch.inference_mode():
        labels = demo_network()(image.data[None]).argmax(dim=1)[0]
    assert dice(labels == 2, image.project((gray > 127).long()) == 1) > 0.8
    assert dice(labels == 3, image.project((white > 127).long()) == 1) > 0.8
    assert labels[image.data[0] == 0].bool().float().mean() < 0.01


def dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
