"""Attribution maps as metrics see them, and how they come to the grid of the network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.attribution.result import Attribution
from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import Context
from voxplain.engine.method import Method, Resampling
from voxplain.engine.randomness import generator
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import InputError, VoxplainWarning, without_warnings
from voxplain.errors import Undefined as Undefined
from voxplain.image import Image
from voxplain.io.arrays import load_array
from voxplain.io.bounds import reading
from voxplain.io.read import ARRAY, NIFTI, read_image

Sign = Literal["signed", "absolute", "positive"]


@dataclass(frozen=True, eq=False)
class MapField:
    """A map on the grid that the network sees.

    Attributes:
        name: Key of the method, or name of the control.
        map: ``(C, *spatial)``, or ``(1, *spatial)`` for all channels together.
        sign: What its sign means; declared by the method, never guessed.
        share: Whether the values divide up the score (``x dS/dx``, differences), or are slopes
            (score per unit of intensity).
        key: Seed of the random order of equal values.
        completeness: |sum of the map - (S(x) - S(b))| / |S(x) - S(b)| for methods that promise
            completeness, else None.
        start: Baseline ``(C, *spatial)`` from which a share is counted; 0 if None.
    """

    name: str
    map: Tensor
    sign: Sign = "signed"
    share: bool = True
    key: str = ""
    completeness: float | None = None
    start: Tensor | None = None

    @cached_property
    def values(self) -> Tensor:
        """One number per voxel, summed over channels, ``(*spatial)`` float64."""
        return self.map.detach().double().sum(dim=0)

    @cached_property
    def positive(self) -> Tensor:
        """The evidence for the target: positive values, 0 elsewhere, ``(*spatial)``."""
        return self.values.clamp(min=0)

    @cached_property
    def order(self) -> Tensor:
        """Flat voxel numbers, the most relevant first; equal values in random order.

        Raises:
            Undefined: If all values are equal, or some are not finite.
        """
        flat = self.require_informative().flatten()
        draws = torch.randperm(len(flat), generator=generator(self.key, self.name, "ties"))
        shuffled = draws.to(flat.device)
        return shuffled[flat[shuffled].argsort(descending=True, stable=True)]

    def require_informative(self) -> Tensor:
        """The values, ``(*spatial)`` float64, of a map that is finite and not constant.

        Raises:
            Undefined: If all values are equal, or some are not finite.
        """
        if not bool(torch.isfinite(self.values).all()):
            raise Undefined("the map holds NaN or infinite values")
        if bool(self.values.amax() == self.values.amin()):
            raise Undefined("the map is constant")
        return self.values


@dataclass(frozen=True, eq=False)
class ExternalMap:
    """A map that was read from a file or made elsewhere, with what is known of it.

    Attributes:
        map: ``(C, *spatial)``, or ``(*spatial)`` for all channels together.
        sign: What its sign means.
        share: Whether the values divide up the score, or are slopes (score per unit of intensity).
        place: The grid it lies on: that of the network's input, or that of the scan's file.
        resampling: How a map on the grid of the scan is resampled to that of the network.
        method: The method that made it, for metrics that explain again; None where unknown.
        completeness: Its completeness residual, where the method promises completeness.
    """

    map: Tensor
    sign: Sign = "signed"
    share: bool = True
    place: Literal["network", "scan"] = "network"
    resampling: Resampling = "value"
    method: Method | None = None
    completeness: float | None = None


AnyMap = Attribution | ExternalMap | Tensor | NDArray[Any] | str | Path
"""Everything that is accepted as a map of one image."""

Maps = Mapping[str, AnyMap]
"""Attributions, arrays ``(C, *spatial)`` (``(B, C, *spatial)`` for a batch) or files, by name."""


def method_of(source: AnyMap) -> Method | None:
    """The method that made a map, where it is known."""
    return source.method if isinstance(source, (Attribution, ExternalMap)) else None


def map_field(name: str, source: AnyMap, context: Context, image: StreamInput) -> MapField:
    """A map on the grid that the network sees.

    Args:
        name: Of the map.
        source: An attribution, an :class:`ExternalMap`, a tensor or array, or the path of a file
            (NIfTI or NumPy) on the grid of the scan.
        context: The network and the scan.
        image: The image as the network sees it.

    Raises:
        InputError: If the map lies on another grid than the scan or the network's input.
    """
    external = to_network_grid(name, source, context)
    return MapField(
        name=name,
        map=external.map.to(image.image.device),
        sign=external.sign,
        share=external.share,
        key=image.key,
        completeness=external.completeness,
        start=_baseline(external.method, image.image),
    )


def to_network_grid(name: str, source: AnyMap, context: Context) -> ExternalMap:
    """A map on the grid that the network sees, ``(C, *spatial)``, with what is known of it.

    Args:
        name: Of the map, for errors.
        source: As in :func:`map_field`.
        context: The network and the scan.

    Raises:
        InputError: If the map lies on another grid than the scan or the network's input.
    """
    scan = context.image
    if isinstance(source, Attribution):
        external = _external(source)
    elif isinstance(source, (str, Path)):
        external = read_map(source, scan)
    elif isinstance(source, ExternalMap):
        external = source
    else:
        external = ExternalMap(torch.as_tensor(source))
    return replace(external, map=_resampled(name, external, scan, context.shape), place="network")


def _external(attribution: Attribution) -> ExternalMap:
    residuals, properties = attribution.stats.completeness, attribution.method.properties()
    on_input = attribution.on_input is not None
    return ExternalMap(
        map=attribution.on_input if attribution.on_input is not None else attribution.map,
        sign=properties.sign,
        share="per unit" not in properties.units,
        place="network" if on_input else "scan",
        resampling=properties.resampling,
        method=attribution.method,
        completeness=residuals[0] if residuals else None,
    )


def _resampled(
    name: str, external: ExternalMap, scan: Image | None, shape: tuple[int, ...]
) -> Tensor:
    values = external.map[None] if external.map.ndim == len(shape) else external.map
    spatial = tuple(values.shape[1:])
    on_scan = scan is not None and spatial == scan.source_grid.shape
    if scan is not None and on_scan and (external.place == "scan" or spatial != shape):
        values = scan.carry(values, external.resampling)
        spatial = tuple(values.shape[1:])
    if spatial != shape:
        scan_shape = "" if scan is None else f", the scan has {scan.source_grid.shape}"
        raise InputError(
            f"the map {name!r} has shape {tuple(external.map.shape)}, and the network sees "
            f"{shape}{scan_shape}; to score maps of layers, use methods that bring them to the "
            "image grid"
        )
    return values


def _baseline(method: Method | None, image: Tensor) -> Tensor | None:
    """The baseline image of a method that has one, ``(C, *spatial)``."""
    baseline = method.properties().baseline if method else None
    if baseline is None or (isinstance(baseline, Tensor) and baseline.shape != image.shape):
        return None
    return baseline_image(baseline, image)


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
    """Reads a map on the grid of a scan; channels are the last axis of NIfTI files.

    Args:
        path: NIfTI; or ``.npy`` or ``.npz`` with ``(*spatial)`` or ``(C, *spatial)``.
        scan: The image it explains.
        sign: What its sign means.
        share: Whether the values divide up the score, or are slopes.
        resampling: How it is resampled to the grid of the network.
        method: The method that made it.
        completeness: Its completeness residual, where there is one.

    Raises:
        InputError: If there is no such file, or it lies on another grid than the scan.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file {path}")
    rank: Any = scan.rank if scan is not None else None
    if path.name.lower().endswith(NIFTI):
        # A picture has no place, and neither have its maps, which is no news.
        is_picture = scan is not None and scan.rank == 2 and not scan.source_grid.code
        with without_warnings(VoxplainWarning) if is_picture else nullcontext():
            image = read_image(path, rank=rank)
        values = image.data
        is_placed = scan is not None and scan.grid.unit == "mm" and not is_picture
        if scan and is_placed and not image.grid.matches(scan.source_grid):
            raise InputError(
                f"the map {path.name} does not lie on the grid of the scan: {image.grid}; scan "
                f"{scan.source_grid}"
            )
    else:
        values = torch.from_numpy(_numpy_array(path))
    return ExternalMap(values, sign, share, "scan", resampling, method, completeness)


def _numpy_array(path: Path) -> NDArray[np.float32]:
    with reading(path):
        if path.suffix.lower() not in ARRAY:
            raise InputError(f"{path.name} is neither NIfTI nor NumPy; a map is one of them")
        loaded = load_array(path)
        if loaded.dtype.kind not in "fiub":
            raise InputError(f"{path.name} holds {loaded.dtype} values, and a map holds numbers")
        return np.array(loaded, dtype=np.float32)
