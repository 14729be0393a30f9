"""Attributions: maps on a grid, with their method, target, cost and checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.engine.identity import plain
from voxplain.engine.method import Method
from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io import write_map
from voxplain.io.facts import grid_facts, software, value_range
from voxplain.records.names import map_name
from voxplain.records.sidecar import (
    Cost,
    LayerFacts,
    ModelFacts,
    Sidecar,
    TargetFacts,
)
from voxplain.viz.notebook import panel_html


@dataclass(frozen=True)
class Stats:
    """Scores, checks and cost of a map; tuples of numbers have one entry per image of the batch.

    Attributes:
        scores: S(x).
        baseline_scores: S(b), where the method has a baseline.
        completeness: |sum of the map - (S(x) - S(b))| / |S(x) - S(b)|, where it should be 0.
        flow: Sum of the map of a layer / (S(x) - S(b)), for methods that distribute that change:
            1 where all of it flows through the layer, less where skip connections bypass it.
        passes: Forward-and-backward passes per image of the streams it read.
        seconds: Of those streams, for the whole batch.
        shared_with: Keys of other methods that read them too.
        streams: Sampler, rule and treated functions of each stream.
        findings: Other results per image, such as the fit of a surrogate or values by region.
        warnings: Sentences for readers of the map.
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
        """The statistics of one image of the batch."""
        row = slice(index, index + 1)
        return replace(
            self,
            scores=self.scores[row],
            baseline_scores=self.baseline_scores and self.baseline_scores[row],
            completeness=self.completeness and self.completeness[row],
            flow=self.flow and self.flow[row],
            findings=self.findings[row],
        )


@dataclass(frozen=True, eq=False)
class Attribution:
    """A map of the contributions of voxels, or of units of a layer, to a score.

    Attributes:
        map: ``(C, *spatial)`` on :attr:`grid` for an image; ``(B, C, *spatial)`` for a tensor of
            images. Layer maps have the layer's channels and cells.
        grid: The source grid of the image, or the layer's own; None for layers without spatial
            axes.
        method: The declaration with all its parameters.
        target: The explained target, one entry per image.
        model: The network.
        stats: Cost, completeness, warnings.
        label: The key in results and files.
        channels: A name per channel of the map.
        layer: The tapped layer of a layer map.
        layer_read: Path of the layer that a map of the image is made of, as for CAMs.
        inverted: Preprocessing steps that were inverted to bring the map to the source grid.
        baseline: Name and intensities of the baseline, where the method has one.
        batched: Whether the map has a batch axis.
        on_input: The map on the grid of the network's input, ``(C, *spatial)`` or with the batch;
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
    layer_read: str | None = None
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
        """Everything that is written beside the map of one image."""
        if self.batched:
            raise ValueError("a sidecar belongs to one image; take attribution[index]")
        stats, properties = self.stats, self.method.properties()
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
            units=properties.units,
            sign=properties.sign,
            resampling=properties.resampling,
            baseline=self.baseline,
            completeness=stats.completeness[0] if stats.completeness else None,
            flow=stats.flow[0] if stats.flow else None,
            findings=stats.findings[0] if stats.findings else {},
            range=value_range(self.map),
            grid=grid_facts(
                self.grid or Grid.default(tuple(self.map.shape[1:]) or (1,)), self.inverted
            ),
            layer=self.layer,
            layer_read=self.layer_read,
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

    def save(self, folder: str | Path, case: str = "case", target: str = "target") -> Path:
        """Writes the map as NIfTI on its grid with its JSON sidecar (2-D: a float array too).

        Args:
            folder: Created if it does not exist.
            case: The id of the case, for the file name.
            target: The short name of the target, for the file name.

        Returns:
            The path of the map.

        Raises:
            InputError: For the map of a layer without spatial axes.
        """
        layer = self.layer.path if self.layer else None
        stem = Path(folder) / map_name(case, target, self.label, layer)
        if self.grid is None:
            raise InputError(
                f"{self.label} has no place in the image (shape {tuple(self.map.shape)}), so it "
                "cannot be written as an image; use to_numpy()"
            )
        return write_map(self.map, self.grid, stem, self.sidecar)

    def _repr_html_(self) -> str:
        return panel_html(self)
