"""The network that a configuration of nnU-Net v2 describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError
from voxplain.models.loading.factory import build
from voxplain.models.loading.nnunet.plans import Plans

_PACKAGE = "dynamic_network_architectures"
_ARCHITECTURES = f"{_PACKAGE}.architectures"
_MODULES = {
    "PlainConvUNet": "unet",
    "ResidualEncoderUNet": "unet",
    "ResidualUNet": "unet",
}
_LAYER = re.compile(r"torch\.nn\.(?:modules\.\w+\.)?([A-Za-z]\w*)")
_PER_AXIS = ("kernel_sizes", "strides")


def build_network(plans: Plans, inputs: int, outputs: int, *, trust: bool, base: Path) -> nn.Module:
    """The network of a configuration, with weights that do not count.

    A 2-D network for slices is built in 3-D, with kernels and strides of 1 along the first axis,
    so that a window is one slice of a volume.

    Args:
        plans: The configuration.
        inputs: Channels of the image.
        outputs: Channels of the output.
        trust: Whether any class may be called; without it, networks of installed packages.
        base: Folder of the study.

    Raises:
        ModelError: If the architecture is not known, needs trust, or a package is missing.
    """
    stated = plans.configuration.get("architecture") or _of_older_plans(plans)
    name, arguments = str(stated.get("network_class_name", "")), stated.get("arch_kwargs")
    if not isinstance(arguments, Mapping):
        raise ModelError(f"plans.json: the architecture of {plans.name} has no arch_kwargs")
    arguments = dict(arguments)
    if plans.takes_slices:
        arguments = _over_slices(arguments, name)
    for key in stated.get("_kw_requires_import", ()):
        if arguments.get(key) is not None:
            arguments[key] = _layer(str(arguments[key]), key)
    arguments |= {
        "input_channels": inputs, "num_classes": outputs, "deep_supervision": False
    }  # fmt: skip
    return _built(name, arguments, trust, base)


def _built(name: str, arguments: dict[str, Any], trust: bool, base: Path) -> nn.Module:
    module, _, short = name.rpartition(".")
    if module.startswith(_PACKAGE):
        if not _is_there():
            raise ModelError(
                f"the networks of nnU-Net need {_PACKAGE}: pip install voxplain[nnunet]"
            )
        if short in _MODULES:  # some have moved between files of the package
            module = f"{_ARCHITECTURES}.{_MODULES[short]}"
    return build(f"{module}:{short}", arguments, trust=trust, base=base)


def _is_there() -> bool:
    try:
        __import__(_ARCHITECTURES)
    except ImportError:
        return False
    return True


def _layer(name: str, key: str) -> type[nn.Module]:
    """A layer of torch by its name; nothing else is imported."""
    match = _LAYER.fullmatch(name)
    found = getattr(nn, match[1], None) if match else None
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise ModelError(f"plans.json: {key} is {name!r}, which is no layer of torch.nn")
    return found


def _over_slices(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    """The arguments of a 2-D network for volumes of one slice."""
    if "conv_op" not in arguments or not all(key in arguments for key in _PER_AXIS):
        raise ModelError(
            f"plans.json: {name} states no conv_op, kernel_sizes and strides, so that it cannot be "
            "applied to the slices of a volume"
        )
    turned = {
        key: value[:-2] + "3d" if isinstance(value, str) and value.endswith("2d") else value
        for key, value in arguments.items()
    }
    return turned | {key: _with_first_axis(arguments[key]) for key in _PER_AXIS}


def _with_first_axis(stages: Any) -> list[Any]:
    """Kernels or strides of every stage, 1 along the slices."""
    return [[1, *(stage if isinstance(stage, list) else [stage, stage])] for stage in stages]


def _of_older_plans(plans: Plans) -> dict[str, Any]:
    """The architecture as plans before nnU-Net 2.3 stated it."""
    stated, dims = plans.configuration, len(plans.patch)
    name = str(stated.get("UNet_class_name"))
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelError(
            f"plans.json: configuration {plans.name} states no architecture and the class "
            f"{name}; PlainConvUNet and ResidualEncoderUNet are supported"
        )
    try:
        return _older(stated, name, dims)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"plans.json: the architecture of configuration {plans.name} is incomplete ({error})"
        ) from error


def _older(stated: Mapping[str, Any], name: str, dims: int) -> dict[str, Any]:
    blocks, stages = stated["n_conv_per_stage_encoder"], len(stated["n_conv_per_stage_encoder"])
    base, most = stated["UNet_base_num_features"], stated["unet_max_num_features"]
    per_stage = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"{_ARCHITECTURES}.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "conv_op": f"torch.nn.Conv{dims}d",
            "kernel_sizes": stated["conv_kernel_sizes"],
            "strides": stated["pool_op_kernel_sizes"],
            per_stage: blocks,
            "n_conv_per_stage_decoder": stated["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
