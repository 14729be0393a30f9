"""The versions a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from voxplain import __version__


def software() -> dict[str, str]:
    """Versions of voxplain, Python and the libraries that computed a result."""
    libraries = ("torch", "numpy", "nibabel", "scikit-image")
    found = {name: installed(name) or "missing" for name in libraries}
    return {"voxplain": __version__, "python": platform.python_version(), **found}


def installed(name: str) -> str | None:
    """The version of a distribution, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
