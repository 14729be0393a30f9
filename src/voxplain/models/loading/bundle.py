"""Networks from MONAI bundles: a folder of configuration and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError
from voxplain.models.loading.factory import importing_from
from voxplain.models.loading.weights import require_trust

_NETWORK_KEYS = ("network_def", "network", "net")
_CONFIGS = ("inference", "evaluate", "train")
_WEIGHTS = ("model.safetensors", "model.pt", "model.pth", "best_metric_model.pt")


def read_bundle(folder: Path, trust: bool) -> tuple[nn.Module, Path]:
    """The network that a bundle defines, and the file of its weights.

    Args:
        folder: Holds ``configs/`` and ``models/``.
        trust: Whether the configuration of the bundle may run code.

    Raises:
        ModelError: If the folder is no bundle, is not trusted, or defines no network.
    """
    configs = _configs(folder)
    weights = [
        folder / "models" / name for name in _WEIGHTS if (folder / "models" / name).is_file()
    ]
    if not configs or not weights:
        missing = "configs/inference.json" if not configs else f"models/{_WEIGHTS[1]}"
        raise ModelError(f"{str(folder)!r} is no MONAI bundle: there is no {missing} in it")
    require_trust(trust, f"{folder.name} is a MONAI bundle, whose configuration runs code")
    with importing_from(folder):
        return _network(folder, configs), weights[0]


def stated_beside_network(folder: Path) -> dict[str, str]:
    """The preprocessing and the inferer of a bundle, by the names of their classes.

    Args:
        folder: A bundle that was opened.
    """
    content: Any = _parser(folder, _configs(folder)[0]).get()
    stated = {part: _targets(content.get(part)) for part in ("preprocessing", "inferer")}
    return {part: ", ".join(names) for part, names in stated.items() if names}


def _targets(content: Any) -> list[str]:
    """Every class that a part of a configuration names, the innermost where they are nested."""
    if isinstance(content, Mapping):
        inner = [name for value in content.values() for name in _targets(value)]
        own = [str(content["_target_"]).rsplit(".", 1)[-1]] if "_target_" in content else []
        return inner or own
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [name for value in content for name in _targets(value)]
    return []


def _configs(folder: Path) -> list[Path]:
    """The configuration files, the one for inference first."""
    suffixes = (".json", ".yaml", ".yml")
    files = [folder / "configs" / f"{name}{suffix}" for name in _CONFIGS for suffix in suffixes]
    return [file for file in files if file.is_file()]


def _network(folder: Path, configs: list[Path]) -> nn.Module:
    for file in configs:
        parser = _parser(folder, file)
        for key in _NETWORK_KEYS:
            if key in parser:
                return _parsed(parser, key, file)
    keys = ", ".join(_NETWORK_KEYS)
    raise ModelError(f"bundle {folder.name} defines no network under any of {keys}")


def _parser(folder: Path, file: Path) -> Any:
    try:
        from monai.bundle.config_parser import ConfigParser
    except ImportError as error:
        raise ModelError("MONAI bundles need MONAI: pip install voxplain[monai]") from error
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(folder)
    return parser


def _parsed(parser: Any, key: str, file: Path) -> nn.Module:
    try:
        network = parser.get_parsed_content(key)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{file.name}: building {key!r} failed with {reason}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{file.name}: {key!r} gives a {type(network).__name__}, no network")
    return network
