"""What an explanation is: a map on a grid, and everything that is known about it."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.engine.identity import plain
from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.records.sidecar import (
    Cost,
    GridFacts,
    LayerFacts,
    ModelFacts,
    Sidecar,
    TargetFacts,
    ValueRange,
)

if TYPE_CHECKING:
    from voxplain.engine.method import Method


@dataclass(frozen=True)
class Stats:
    """What a map cost and how it can be checked; one entry per image of the batch.

    Attributes:
        scores: S(x).
        baseline_scores: S(b), where the method has a baseline.
        completeness: |sum of the map - (S(x) - S(b))| / |S(x) - S(b)|, where it should be 0.
        flow: Sum of the map of a layer / (S(x) - S(b)), for methods that share out that change:
            1 where everything flows through the layer, less where skips go around it.
        passes: Forward-and-backward passes per image of the streams it read.
        seconds: Of those streams, whole batch.
        shared_with: Other methods that read them too.
        streams: Sampler, rule and treated functions of each stream.
        findings: What else came out: a fit, values by region.
        warnings: In words.
        peak_memory_mb: On a GPU.
    """

    scores: tuple[float, ...]
    baseline_scores: tuple[float, ...] | None = None
    completeness: tuple[float, ...] | None = None
    flow: tuple[float, ...] | None = None
    passes: int = 0
    seconds: float = 0.0
    shared_with: tuple[str, ...] = ()
    streams: tuple[dict[str, Any], ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    peak_memory_mb: float | None = None

    def row(self, index: int) -> Stats:
        """The same for one image of the batch."""

        def one(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
            return None if values is None else values[index : index + 1]

        return replace(
            self,
            scores=self.scores[index : index + 1],
            baseline_scores=one(self.baseline_scores),
            completeness=one(self.completeness),
            flow=one(self.flow),
            findings=self.findings[index : index + 1],
        )


@dataclass(frozen=True, eq=False)
class Attribution:
    """A signed map of what raised or lowered a score.

    Attributes:
        map: ``(C, *spatial)`` on :attr:`grid` for an image; ``(B, C, *spatial)`` for a tensor of
            images. Layer maps have the layer's channels and cells.
        grid: Where the map lies: the source grid of the image, or the layer's own; None for
            layers without spatial axes.
        method: The declaration with all its parameters.
        target: What was explained, one entry per image.
        model: The network.
        stats: Cost, completeness, warnings.
        label: The key in results and files.
        channels: A name per channel of the map.
        layer: The tapped layer of a layer map.
        on_input: The map on the grid that the network saw, ``(C, *spatial)`` or with the batch;
            None for layer maps. It is not saved.
    """

    map: Tensor
    grid: Grid | None
    method: Method
    target: tuple[TargetFacts, ...]
    model: ModelFacts
    stats: Stats
    label: str
    channels: tuple[str, ...]
    layer: LayerFacts | None = None
    inverted: tuple[str, ...] = ()
    baseline: dict[str, Any] | None = None
    batched: bool = False
    on_input: Tensor | None = None

    def __getitem__(self, index: int) -> Attribution:
        """The attribution of one image of a batch."""
        if not self.batched:
            raise IndexError("this attribution is of one image")
        return replace(
            self,
            map=self.map[index],
            on_input=None if self.on_input is None else self.on_input[index],
            target=self.target[index : index + 1],
            stats=self.stats.row(index),
            batched=False,
        )

    def to_numpy(self) -> NDArray[np.float32]:
        """The map as an array."""
        return cast("NDArray[np.float32]", self.map.detach().cpu().numpy())

    @cached_property
    def sidecar(self) -> Sidecar:
        """Everything a reader needs to know, for one image."""
        if self.batched:
            raise ValueError("a sidecar belongs to one image; take attribution[index]")
        stats = self.stats
        return Sidecar(
            method=self.method.name,
            label=self.label,
            meaning=self.method.meaning(),
            formula=self.method.formula,
            paper=self.method.reference,
            parameters=plain(self.method.model_dump(mode="python", by_alias=True)),
            stream=list(stats.streams),
            target=self.target[0],
            channels=self.channels,
            units=self.method.units,
            sign=self.method.sign,
            resampling=self.method.resampling,
            baseline=self.baseline,
            completeness=stats.completeness[0] if stats.completeness else None,
            flow=stats.flow[0] if stats.flow else None,
            findings=stats.findings[0] if stats.findings else {},
            range=_range(self.map),
            grid=self._grid_facts,
            layer=self.layer,
            model=self.model,
            cost=Cost(
                passes=stats.passes,
                seconds=round(stats.seconds, 3),
                shared_with=list(stats.shared_with),
                peak_memory_mb=stats.peak_memory_mb,
            ),
            software=software(),
            warnings=list(stats.warnings),
        )

    @property
    def _grid_facts(self) -> GridFacts:
        grid = self.grid or Grid.default(tuple(self.map.shape[1:]) or (1,))
        return GridFacts(
            shape=grid.shape,
            affine=grid.affine.tolist(),
            spacing=grid.spacing,
            unit=grid.unit,
            orientation="".join(grid.axis_codes),
            inverted=list(self.inverted),
        )

    def save(self, folder: str | Path, case: str = "case", target: str = "target") -> Path:
        """Writes the map as NIfTI on its grid with its JSON sidecar (2-D: a float array too).

        Args:
            folder: Where to; made if absent.
            case: The id that names the file.
            target: The short name of the target.

        Returns:
            The path of the map.
        """
        from voxplain.io import write_map
        from voxplain.records.names import map_name

        layer = self.layer.path if self.layer else None
        stem = Path(folder) / map_name(case, target, self.label, layer)
        if self.grid is None:
            raise InputError(
                f"{self.label} has no place in the image (shape {tuple(self.map.shape)}), so it "
                "cannot be written as an image; use to_numpy()"
            )
        return write_map(self.map, self.grid, stem, self.sidecar)

    def _repr_html_(self) -> str:
        from voxplain.viz.notebook import panel_html

        return panel_html(self)


def software() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("voxplain", "monai", "nibabel", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _range(map: Tensor) -> ValueRange:
    values = map.detach().double().cpu().numpy().ravel()
    low, high = np.quantile(values, [0.005, 0.995])
    return ValueRange(
        q005=float(low),
        q995=float(high),
        minimum=float(values.min()),
        maximum=float(values.max()),
        sum=float(values.sum()),
        zeros=float((values == 0).mean()),
    )
