"""The thirteen MONAI networks of the acceptance matrix, with their 2-D twins where they have one.

Every builder gives a small configuration with random weights from a fixed seed, one channel in and
two classes out, in eval mode. ``nonlinear`` is what the audit must list, for one forward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Row:
    """One network of the matrix.

    Attributes:
        build: Given the rank, the network (rank 3 has the counts below).
        size: Voxels per axis for the acceptance run.
        light: Voxels per axis that suffice for the other checks.
        nonlinear: Function to number of calls that need a rule.
        rectifiers: Names of the above that Guided treats.
        ranks: Ranks in which the network exists at these settings.
        unshared: Whether every rectifier is a module that is called once.
        heavy: Whether even the light size takes long in 3-D.
    """

    build: Callable[[int], nn.Module]
    nonlinear: dict[str, int]
    size: int = 32
    light: int = 32
    ranks: tuple[int, ...] = (2, 3)
    unshared: bool = False
    heavy: bool = False


def network(name: str, rank: int = 3) -> nn.Module:
    """The network of that row with random weights, in eval mode."""
    pytest.importorskip("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return _Logits(MATRIX[name].build(rank)).eval()


def image(name: str, rank: int = 3, batch: int = 1, light: bool = False) -> Tensor:
    """N(0, 1) noise, shape (batch, 1, *spatial)."""
    row = MATRIX[name]
    size = row.light if light else row.size
    generator = torch.Generator().manual_seed(1)
    return torch.randn((batch, 1, *[size] * rank), generator=generator)


def score(output: Tensor) -> Tensor:
    """Mean over positions of the class-1 logit, one number per image."""
    return output[:, 1].reshape(len(output), -1).mean(1)


class _Logits(nn.Module):
    """Takes the logits out of networks that return more."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        return output[0] if isinstance(output, (tuple, list)) else output


def _unet(rank: int) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(rank, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)


def _basic_unet(rank: int) -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(rank, 1, 2, features=(4, 4, 8, 16, 32, 4))


def _segresnet(rank: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(rank, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,))


def _dynunet(rank: int) -> nn.Module:
    from monai.networks.nets import DynUNet

    strides = (1, 2, 2)
    return DynUNet(rank, 1, 2, (3, 3, 3), strides, strides[1:], filters=(4, 8, 16))


def _attention_unet(rank: int) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(rank, 1, 2, channels=(4, 8, 16), strides=(2, 2))


def _vnet(rank: int) -> nn.Module:
    from monai.networks.nets import VNet

    return VNet(rank, 1, 2)


def _unetr(rank: int) -> nn.Module:
    from monai.networks.nets import UNETR

    sizes = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
    return UNETR(1, 2, (32,) * rank, **sizes, spatial_dims=rank)


def _swin_unetr(rank: int) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    ones = (1, 1, 1, 1)
    return SwinUNETR(1, 2, feature_size=12, depths=ones, num_heads=ones, spatial_dims=rank)


def _densenet(rank: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    return DenseNet121(rank, 1, 2)


def _resnet(rank: int) -> nn.Module:
    from monai.networks.nets import resnet10

    return resnet10(spatial_dims=rank, n_input_channels=1, num_classes=2)


def _vit(rank: int) -> nn.Module:
    from monai.networks.nets import ViT

    sizes = {"hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2}
    head = {"classification": True, "post_activation": "none"}  # the default adds a tanh
    return ViT(1, (32,) * rank, (16,) * rank, **sizes, **head, spatial_dims=rank)


def _efficientnet(rank: int) -> nn.Module:
    from monai.networks.nets import EfficientNetBN

    return EfficientNetBN("efficientnet-b0", False, spatial_dims=rank, in_channels=1, num_classes=2)


def _seresnet(rank: int) -> nn.Module:
    from monai.networks.nets import SEResNet50

    return SEResNet50(spatial_dims=rank, in_channels=1, num_classes=2)


MATRIX: dict[str, Row] = {
    "UNet": Row(_unet, {"instance_norm": 6, "prelu": 6}, light=16, unshared=True),
    "BasicUNet": Row(
        _basic_unet, {"instance_norm": 18, "leaky_relu": 18, "max_pool3d": 4}, unshared=True
    ),
    "SegResNet": Row(_segresnet, {"group_norm": 7, "relu": 7}, light=16),
    "DynUNet": Row(_dynunet, {"instance_norm": 10, "leaky_relu": 10}, light=16),
    "AttentionUnet": Row(
        _attention_unet,
        {"relu": 10, "sigmoid": 2, "mul": 2, "instance_norm": 2, "prelu": 2},
        light=16,
    ),
    "VNet": Row(_vnet, {"elu": 32}, light=16, unshared=True),
    "UNETR": Row(
        _unetr,
        {
            "layer_norm": 25,
            "einsum": 24,
            "softmax": 12,
            "gelu": 12,
            "instance_norm": 21,
            "leaky_relu": 16,
        },
    ),
    "SwinUNETR": Row(
        _swin_unetr,
        {
            "layer_norm": 17,
            "matmul": 8,
            "softmax": 4,
            "gelu": 4,
            "instance_norm": 26,
            "leaky_relu": 20,
        },
        size=64,
        light=64,
        heavy=True,
    ),
    "DenseNet121": Row(_densenet, {"relu": 121, "max_pool3d": 1}, size=64, unshared=True),
    "ResNet10": Row(_resnet, {"relu": 9, "max_pool3d": 1}),
    "ViT": Row(_vit, {"layer_norm": 5, "einsum": 4, "softmax": 2, "gelu": 2}),
    "EfficientNet": Row(_efficientnet, {"silu": 49, "sigmoid": 16, "mul": 16}),
    "SEResNet50": Row(_seresnet, {"relu": 65, "max_pool3d": 1, "sigmoid": 16, "mul": 16}),
}
