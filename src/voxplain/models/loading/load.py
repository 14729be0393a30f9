"""A network with its weights, from any source that a study can name."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.errors import ModelError, VoxplainWarning
from voxplain.models.loading.blackbox import OnnxBox, read_script
from voxplain.models.loading.bundle import beside_bundle, read_bundle
from voxplain.models.loading.factory import build
from voxplain.models.loading.fitting import load_weights
from voxplain.models.loading.nnunet import open_nnunet
from voxplain.models.loading.opened import Beside, OpenedNetwork
from voxplain.models.loading.spec import ModelSpec
from voxplain.models.loading.weights import (
    existing,
    read_weights,
    require_bounded,
    require_trust,
)

_SHOWN = 80


def load_network(spec: ModelSpec, *, trust: bool = False, base: Path | None = None) -> nn.Module:
    """The network of a spec with its weights, on the CPU, in the mode in which it was created.

    See :func:`open_network`, which also says what stands beside it.
    """
    return open_network(spec, trust=trust, base=base).network


def open_network(
    spec: ModelSpec, *, trust: bool = False, base: Path | None = None
) -> OpenedNetwork:
    """The network of a spec with its weights, and what its folder states of it.

    Args:
        spec: The source of the network.
        trust: Whether files may run code: pickles, TorchScript, bundles, factories in files.
        base: Folder from which relative paths start; the working folder if None.

    Raises:
        ModelError: If a file is missing or needs trust, the factory does not exist or fails, or
            the weights do not fit.
    """
    try:
        return _loaded(spec, trust, base or Path.cwd())
    except OSError as error:
        named = spec.file or spec.weights or spec.bundle or spec.nnunet or spec.factory
        what = os.strerror(error.errno).lower() if error.errno else type(error).__name__
        raise ModelError(f"{str(named)[:_SHOWN]}: the file cannot be read ({what})") from error


def _loaded(spec: ModelSpec, trust: bool, base: Path) -> OpenedNetwork:
    if spec.file is not None:
        return OpenedNetwork(_from_file(existing(base / spec.file, "file"), trust))
    if spec.nnunet is not None:
        if len(spec.folds) > 1 and not spec.ensemble:
            raise ModelError(
                f"folds {list(spec.folds)} are networks of their own; load one of them, or their "
                "mean by ensemble: true"
            )
        folder = base / spec.nnunet
        return open_nnunet(folder, spec.folds, spec.checkpoint, trust=trust, base=base)
    weights = existing(base / spec.weights, "weights") if spec.weights is not None else None
    beside = Beside()
    if spec.bundle is not None:
        network, bundled_weights = read_bundle(base / spec.bundle, trust)
        beside = beside_bundle(base / spec.bundle)
        _say_what_is_left_aside(spec, base / spec.bundle, beside)
        weights = weights or bundled_weights
    else:
        assert spec.factory is not None
        network = build(spec.factory, spec.arguments, trust=trust, base=base)
    if weights is not None:
        checkpoint = read_weights(weights, trust=trust)
        _require_real(checkpoint, network, weights.name)
        load_weights(network, checkpoint, weights.name, spec.prefix, spec.part)
    return OpenedNetwork(network, beside)


def _require_real(content: Any, network: nn.Module, origin: str) -> None:
    """Refuses complex and boolean tensors in place of the real ones of a network."""
    real = {name for name, value in network.state_dict().items() if _is_real(value)}
    for name, tensor in _tensors(content):
        fits = name in real or any(name.endswith(f".{known}") for known in real)
        if fits and (tensor.is_complex() or tensor.dtype is torch.bool):
            raise ModelError(
                f"weights {origin}: {name} is {str(tensor.dtype).removeprefix('torch.')}, and the "
                "network has real numbers there"
            )


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a checkpoint with their names in the mapping that holds them."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield str(name), value
        else:
            yield from _tensors(value)


def _say_what_is_left_aside(spec: ModelSpec, bundle: Path, beside: Beside) -> None:
    """Warns of what a bundle states, cannot be taken over, and the study does not state."""
    missing = [text for field, text in beside.missing.items() if field not in spec.model_fields_set]
    fields = [field for field in beside.missing if field not in spec.model_fields_set]
    if missing:
        warnings.warn(
            f"bundle {bundle.name}: its {' and its '.join(missing)} cannot be taken over; state "
            f"{' and '.join(fields)} in the study",
            VoxplainWarning,
            stacklevel=4,
        )


def _from_file(file: Path, trust: bool) -> nn.Module:
    if file.suffix.lower() == ".onnx":
        return OnnxBox(file)
    kind = "a TorchScript file" if _is_script(file) else "a pickled network"
    require_bounded(file)
    require_trust(trust, f"{file.name} is {kind}, and opening it runs the code in it")
    return read_script(file) if _is_script(file) else _from_pickle(file)


def _is_script(file: Path) -> bool:
    """Whether a file is a TorchScript archive, which holds source code beside tensors."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(
            "/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist()
        )


def _from_pickle(file: Path) -> nn.Module:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{file.name} cannot be unpickled ({reason}); its classes must be importable"
        ) from error
    if not isinstance(loaded, nn.Module):
        raise ModelError(
            f"{file.name} holds a {type(loaded).__name__}, no network; give a state_dict as "
            "weights beside a factory"
        )
    return loaded
