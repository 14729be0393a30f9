"""Networks that a function or class of the user builds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from voxplain.errors import ModelError, nearest
from voxplain.models.loading.installed import why_not_callable, why_not_importable
from voxplain.models.loading.weights import existing, require_trust


def build(factory: str, arguments: Mapping[str, Any], *, trust: bool, base: Path) -> nn.Module:
    """The network that a function returns.

    Args:
        factory: ``package.module:function`` or ``file.py:function``.
        arguments: Keyword arguments of the function.
        trust: Whether any code may run; without it, only subclasses of ``nn.Module`` and functions
            that state one as what they return, both of an installed package.
        base: Folder from which the path of a file starts.

    Raises:
        ModelError: If the function does not exist, needs trust, does not take these arguments,
            fails, or returns no network.
    """
    source, _, name = factory.rpartition(":")
    if source.endswith(".py"):
        file = existing(base / source, "factory file")
        require_trust(trust, f"factory {factory!r} runs the code of a file")
        with importing_from(file.parent):
            return _call(factory, _find(_module_of(file), name, factory), arguments)
    _require_harmless(trust, factory, why_not_importable(source, base))
    builder = _find(_installed(source, factory), name, factory)
    _require_harmless(trust, factory, why_not_callable(builder, base))
    return _call(factory, builder, arguments)


def _require_harmless(trust: bool, factory: str, reason: str) -> None:
    if reason:
        require_trust(trust, f"factory {factory!r} can run any code: {reason}")


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """A block in which files of a folder can be imported."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _installed(module: str, factory: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        reason = f"module {error.name!r} cannot be imported"
        hint = "install it, or give the path of its file as in 'nets/unet.py:build'"
        raise ModelError(f"factory {factory!r}: {reason}; {hint}") from error
    except Exception as error:
        raise _failed(factory, "importing it", error) from error


def _module_of(file: Path) -> ModuleType:
    """The module of a file, with a name that depends on its path alone, so that pickles find it."""
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"voxplain_factory_{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"factory file {file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(file.name, "running it", error) from error
    return module


def _find(module: ModuleType, name: str, factory: str) -> Callable[..., Any]:
    owner: Any = module
    for attribute in name.split("."):
        if not hasattr(owner, attribute):
            functions = [key for key, value in vars(owner).items() if callable(value)]
            hint = nearest(attribute, (key for key in functions if not key.startswith("_")))
            raise ModelError(f"factory {factory!r}: there is no {attribute!r} in it; {hint}")
        owner = getattr(owner, attribute)
    if not callable(owner):
        raise ModelError(f"factory {factory!r} is a {type(owner).__name__}, not a function")
    return owner  # type: ignore[no-any-return]


def _call(factory: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    _check_arguments(factory, function, arguments)
    try:
        network = function(**arguments)
    except Exception as error:
        raise _failed(factory, "calling it", error) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"factory {factory!r} gives a {type(network).__name__}, not a torch.nn.Module"
        )
    return network


def _check_arguments(
    factory: str, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in arguments:
        if name not in parameters:
            raise ModelError(f"factory {factory!r} takes no {name!r}; {nearest(name, parameters)}")


def _failed(what: str, when: str, error: Exception) -> ModelError:
    return ModelError(f"factory {what!r}: {when} failed with {type(error).__name__}: {error}")
