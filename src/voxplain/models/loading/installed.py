"""What may be called without trust: classes and functions of installed packages that are networks.

A study that somebody sent names a factory by text. Whatever it names is found first and called
only if it can do nothing but build a network; everything else is a question of trust.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints
from urllib.parse import unquote, urlparse

from torch import nn

_SITE_FOLDERS = {"site-packages", "dist-packages"}
_OWN_NETWORKS = "voxplain.zoo"
_LOADS = re.compile(r"(?:^|_)(?:un)?(?:load|pickle|restore|from|import|eval|exec)(?:_|$)")


def why_not_importable(module: str, base: Path) -> str:
    """Why importing a module needs trust, in words; empty if it needs none.

    Args:
        module: Its dotted name; nothing is imported.
        base: Folder of the study, whose own files are never trusted.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "__main__":
        return f"{top} belongs to Python and builds no network"
    if "__main__" in module.split("."):
        return f"{module} is a program, which importing it would run"
    spec = _spec(top)
    if spec is not None and not all(_is_installed(place, base) for place in _places(spec)):
        return f"{top} is a file on the import path, and no installed package"
    return ""


def why_not_callable(builder: Callable[..., Any], base: Path) -> str:
    """Why calling what a factory names needs trust, in words; empty if it needs none.

    Without trust go subclasses of ``nn.Module``, and functions that state one as what they return;
    both of an installed package. What torch and voxplain offer beside layers and networks opens
    files and calls what it is given, so that it needs trust.

    Args:
        builder: A function or class.
        base: Folder of the study.
    """
    module = str(getattr(builder, "__module__", None) or "")
    reason = why_not_importable(module, base) if module else "it belongs to no module"
    if reason:
        return reason
    if isinstance(builder, type):
        return _why_not_class(builder, module)
    if not isinstance(builder, FunctionType) or "." in builder.__qualname__:
        return "it is neither a function of a module nor a class"
    if _LOADS.search(builder.__name__) or not _may_build(module):
        return "it may open files that run code"
    if not _states_network(builder):
        return "it does not state that it returns a torch.nn.Module"
    return ""


def _why_not_class(kind: type, module: str) -> str:
    if not issubclass(kind, nn.Module):
        return "it is no subclass of torch.nn.Module"
    if module.startswith("torch.") and not module.startswith("torch.nn."):
        return "it is no layer of torch.nn"
    return ""


def _may_build(module: str) -> bool:
    """Whether functions of a module build networks; torch and voxplain have others too."""
    top = module.partition(".")[0]
    return module == _OWN_NETWORKS if top == "voxplain" else top != "torch"


def _states_network(function: FunctionType) -> bool:
    try:
        stated = get_type_hints(function).get("return")
    except Exception:  # an annotation that cannot be evaluated states nothing
        return False
    return inspect.isclass(stated) and issubclass(stated, nn.Module)


def _spec(top: str) -> Any:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _places(spec: Any) -> list[Path]:
    """Every file or folder that a module comes from."""
    named = [spec.origin] if spec.has_location else [*(spec.submodule_search_locations or ())]
    return [Path(place).resolve() for place in named] or [Path("/")]


def _is_installed(place: Path, base: Path) -> bool:
    """Whether a place belongs to an installed package: in a site folder, or installed from it."""
    if _SITE_FOLDERS & {*place.parts} or place.is_relative_to(_own_folder()):
        return True
    beside = place.is_relative_to(base.resolve())
    return not beside and any(place.is_relative_to(folder) for folder in _editable())


def _own_folder() -> Path:
    return Path(__file__).resolve().parents[2]


@cache
def _editable() -> tuple[Path, ...]:
    """The source folders of packages that are installed in place (PEP 610)."""
    return tuple(_editable_folders())


def _editable_folders() -> Iterator[Path]:
    for distribution in importlib.metadata.distributions():
        try:
            stated = json.loads(distribution.read_text("direct_url.json") or "{}")
        except (OSError, ValueError):
            continue
        if stated.get("dir_info", {}).get("editable"):
            yield Path(unquote(urlparse(stated.get("url", "")).path)).resolve()
