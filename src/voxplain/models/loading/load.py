"""A network with its weights, from any source that a study can name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.loading.blackbox import OnnxBox, ScriptBox
from voxplain.models.loading.bundle import read_bundle
from voxplain.models.loading.factory import build
from voxplain.models.loading.fitting import load_weights
from voxplain.models.loading.spec import ModelSpec
from voxplain.models.loading.weights import existing, read_weights, require_trust


def load_network(spec: ModelSpec, *, trust: bool = False, base: Path | None = None) -> nn.Module:
    """The network of a spec with its weights, on the CPU, in the mode in which it was created.

    Args:
        spec: The source of the network.
        trust: Whether files may run code: pickles, TorchScript, bundles, factories in files.
        base: Folder from which relative paths start; the working folder if None.

    Raises:
        ModelError: If a file is missing or needs trust, the factory does not exist or fails, or
            the weights do not fit.
    """
    base = base or Path.cwd()
    if spec.file is not None:
        return _from_file(existing(base / spec.file, "file"), trust)
    weights = existing(base / spec.weights, "weights") if spec.weights is not None else None
    if spec.bundle is not None:
        network, bundled_weights = read_bundle(base / spec.bundle, trust)
        weights = weights or bundled_weights
    else:
        assert spec.factory is not None
        network = build(spec.factory, spec.arguments, trust=trust, base=base)
    if weights is not None:
        checkpoint = read_weights(weights, trust=trust)
        load_weights(network, checkpoint, weights.name, spec.prefix, spec.part)
    return network


def _from_file(file: Path, trust: bool) -> nn.Module:
    if file.suffix.lower() == ".onnx":
        return OnnxBox(file)
    kind = "a TorchScript file" if _is_script(file) else "a pickled network"
    require_trust(trust, f"{file.name} is {kind}, and opening it runs the code in it")
    return ScriptBox(file) if _is_script(file) else _from_pickle(file)


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
