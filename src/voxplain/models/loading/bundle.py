"""Networks from MONAI bundles: a folder of configuration and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError
from voxplain.models.head import StatedActivation
from voxplain.models.loading.bundle_steps import NoCounterpartError, steps_of, window_of
from voxplain.models.loading.factory import importing_from
from voxplain.models.loading.opened import Beside
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


def beside_bundle(folder: Path) -> Beside:
    """The preprocessing, windows and classes that a bundle states, as far as they are declared.

    Args:
        folder: A bundle that was opened.

    Returns:
        In ``missing``, in words, what has no counterpart; then nothing of that part is taken over.
    """
    file = _configs(folder)[0]
    parser = _parser(folder, file)
    content: Any = parser.get()
    fields: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for field, key, read in (
        ("preprocess", "preprocessing", steps_of),
        ("window", "inferer", window_of),
    ):
        if content.get(key) is None:
            continue
        try:
            fields[field] = read(_without_references(content[key], parser, ()))
        except NoCounterpartError as error:
            missing[field] = f"{key} ({error})"
        except (TypeError, ValueError, KeyError) as error:
            missing[field] = f"{key} ({type(error).__name__}: {error})"
    return Beside(
        **fields,
        classes=_class_names(folder),
        activation=_activation(_without_references(content.get("postprocessing"), parser, ())),
        missing=missing,
    )


def _without_references(part: Any, parser: Any, seen: tuple[str, ...]) -> Any:
    """A part of a configuration with the values that ``@id`` names; nothing is evaluated."""
    if isinstance(part, Mapping):
        return {key: _without_references(value, parser, seen) for key, value in part.items()}
    if isinstance(part, list):
        return [_without_references(value, parser, seen) for value in part]
    if not isinstance(part, str) or not part.startswith("@"):
        return part
    name = part[1:]
    if name in seen or name not in parser:
        raise NoCounterpartError(f"the reference {part}")
    return _without_references(parser[name], parser, (*seen, name))


def _activation(postprocessing: Any) -> StatedActivation:
    """What the transforms behind the network make probabilities by, where they say one."""
    if isinstance(postprocessing, Mapping):
        name = str(postprocessing.get("_target_", "")).rsplit(".", 1)[-1]
        if name.startswith("Activations"):
            found = [each for each in _ACTIVATIONS if _is_true(postprocessing.get(each))]
            return found[0] if len(found) == 1 else "auto"
    parts: list[Any] = []
    if isinstance(postprocessing, Mapping):
        parts = list(postprocessing.values())
    elif isinstance(postprocessing, list):
        parts = postprocessing
    inner = {_activation(part) for part in parts} - {"auto"}
    return inner.pop() if len(inner) == 1 else "auto"


_ACTIVATIONS: tuple[StatedActivation, ...] = ("softmax", "sigmoid")


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, list) and bool(value) and value[0] is True)


def _class_names(folder: Path) -> tuple[str, ...]:
    """The channels of the output as ``metadata.json`` names them; none if it does not."""
    file = folder / "configs" / "metadata.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        named = content["network_data_format"]["outputs"]["pred"]["channel_def"]
        return tuple(str(named[str(channel)]) for channel in range(len(named)))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


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
