"""Maps however they are given: attributions, arrays, files; all on the grid of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.attribution.result import Attribution
from voxplain.engine.context import Context
from voxplain.engine.method import Method, Resampling
from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.io.read import NIFTI, read_image
from voxplain.metrics.map_field import Sign


@dataclass(frozen=True, eq=False)
class ExternalMap:
    """A map that no call of :func:`voxplain.explain` has just made, with what is known of it.

    Attributes:
        map: ``(C, *spatial)``, or ``(*spatial)`` for one of all channels.
        sign: What its sign means.
        share: Whether it shares out the score, or is a slope (score per unit of intensity).
        place: The grid it lies on: that of the network's input, or that of the scan's file.
        resampling: How a map on the grid of the scan comes to that of the network.
        method: The method behind it, for metrics that explain again; None where unknown.
        completeness: Its residual, where the method promises that it is 0.
    """

    map: Tensor
    sign: Sign = "signed"
    share: bool = True
    place: Literal["network", "scan"] = "network"
    resampling: Resampling = "value"
    method: Method | None = None
    completeness: float | None = None


AnyMap = Attribution | ExternalMap | Tensor | NDArray[Any] | str | Path
"""Everything that can be judged as a map of one image."""


def to_network_grid(name: str, found: AnyMap, context: Context) -> ExternalMap:
    """A map on the grid that the network sees, ``(C, *spatial)``.

    Args:
        name: Of the map, for errors.
        found: An attribution, a :class:`ExternalMap`, a tensor or array, or the path of a file
            (NIfTI, or NumPy) on the grid of the scan.
        context: The network and the image.

    Raises:
        InputError: If it lies elsewhere.
    """
    scan = context.image
    if isinstance(found, Attribution):
        found = _of_attribution(found)
    elif isinstance(found, (str, Path)):
        found = read_map(found, scan)
    elif not isinstance(found, ExternalMap):
        found = ExternalMap(torch.as_tensor(found))
    return replace(found, map=_placed(name, found, scan, context.shape), place="network")


def method_of(found: AnyMap) -> Method | None:
    """The method behind a map, where it is known."""
    return found.method if isinstance(found, (Attribution, ExternalMap)) else None


def read_map(
    path: str | Path,
    scan: Image | None,
    *,
    sign: Sign = "signed",
    share: bool = True,
    resampling: Resampling = "value",
    method: Method | None = None,
    completeness: float | None = None,
) -> ExternalMap:
    """A map from a file on the grid of a scan; channels are the last axis of NIfTI files.

    Args:
        path: NIfTI; or ``.npy`` or ``.npz`` with ``(*spatial)`` or ``(C, *spatial)``.
        scan: The image it explains.
        sign: What its sign means.
        share: Whether it shares out the score, or is a slope.
        resampling: How it comes to the grid of the network.
        method: The method behind it.
        completeness: Its residual, where there is one.

    Raises:
        InputError: If there is no such file, or it lies on another grid than the scan.
    """
    path = Path(path)
    rank: Any = scan.rank if scan is not None else None
    if path.name.lower().endswith(NIFTI):
        read = read_image(path, rank=rank)
        map = read.data
        if scan is not None and scan.grid.unit == "mm" and not read.grid.matches(scan.source_grid):
            raise InputError(
                f"the map {path.name} does not lie on the grid of the scan: {read.grid}; scan "
                f"{scan.source_grid}"
            )
    else:
        map = torch.from_numpy(_array(path))
    return ExternalMap(map, sign, share, "scan", resampling, method, completeness)


def _array(path: Path) -> NDArray[np.float32]:
    if not path.exists():
        raise InputError(f"there is no file {path}")
    try:
        loaded = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path.name} is neither NIfTI nor NumPy; a map is one of them") from error
    if isinstance(loaded, np.lib.npyio.NpzFile):
        if len(loaded.files) != 1:
            raise InputError(f"{path.name} holds {len(loaded.files)} arrays, and a map is one")
        loaded = loaded[loaded.files[0]]
    if loaded.dtype.kind not in "fiub":
        raise InputError(f"{path.name} holds {loaded.dtype} values, and a map holds numbers")
    return np.asarray(loaded, dtype=np.float32)


def _of_attribution(found: Attribution) -> ExternalMap:
    residuals, properties = found.stats.completeness, found.method.properties()
    on_input = found.on_input is not None
    return ExternalMap(
        map=found.on_input if found.on_input is not None else found.map,
        sign=properties.sign,
        share="per unit" not in properties.units,
        place="network" if on_input else "scan",
        resampling=properties.resampling,
        method=found.method,
        completeness=residuals[0] if residuals else None,
    )


def _placed(name: str, given: ExternalMap, scan: Image | None, shape: tuple[int, ...]) -> Tensor:
    map = given.map[None] if given.map.ndim == len(shape) else given.map
    spatial = tuple(map.shape[1:])
    from_scan = scan is not None and spatial == scan.source_grid.shape
    if scan is not None and from_scan and (given.place == "scan" or spatial != shape):
        map = scan.carry(map, given.resampling)
        spatial = tuple(map.shape[1:])
    if spatial != shape:
        seen = "" if scan is None else f", the scan has {scan.source_grid.shape}"
        raise InputError(
            f"the map {name!r} has shape {tuple(given.map.shape)}, and the network sees "
            f"{shape}{seen}; maps of layers are judged by methods that bring them to the image grid"
        )
    return map


Maps = Mapping[str, AnyMap]
"""Attributions, arrays ``(C, *spatial)`` (``(B, C, *spatial)`` for a batch) or files, by name."""
