"""What sidecars state of any map: its values, its grid, and the versions it depends on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor

from voxplain.grid import Grid
from voxplain.records.sidecar import GridFacts, ValueRange


def software() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("voxplain", "monai", "nibabel", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def value_range(values: Tensor) -> ValueRange:
    """Quantiles of a map of any shape."""
    flat = values.detach().double().cpu().numpy().ravel()
    low, high = np.quantile(flat, [0.005, 0.995])
    return ValueRange(
        q005=float(low),
        q995=float(high),
        minimum=float(flat.min()),
        maximum=float(flat.max()),
        sum=float(flat.sum()),
        zeros=float((flat == 0).mean()),
    )


def grid_facts(grid: Grid, inverted: Sequence[str] = ()) -> GridFacts:
    """Where a map lies, and which preprocessing steps were inverted to get there."""
    return GridFacts(
        shape=grid.shape,
        affine=grid.affine.tolist(),
        spacing=grid.spacing,
        unit=grid.unit,
        orientation=grid.orientation,
        inverted=list(inverted),
    )
