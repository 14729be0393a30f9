"""Synthesized images: on their grid, with what they drive and how they came about."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.identity import plain
from voxplain.image import Grid, Image
from voxplain.io import atomic_write, write_image
from voxplain.records.names import safe
from voxplain.records.sidecar import GridFacts, ModelFacts
from voxplain.records.synthesis import ReliabilityRecord, SynthesisRecord, SynthesizedImage
from voxplain.synthesis.image_statistics import ImageStatistics
from voxplain.synthesis.methods.base import SynthesisMethod
from voxplain.synthesis.mosaic import mosaic
from voxplain.synthesis.objectives.base import Objective
from voxplain.version import __version__
from voxplain.viz.drawing import png
from voxplain.viz.embed import figure_uri
from voxplain.viz.figures import MapFigure
from voxplain.viz.synthesis_figure import SynthesizedView, synthesis_figure
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import number, title


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Images that were synthesized to drive one unit.

    Attributes:
        images: ``(N, C, *spatial)`` in the intensities that the network sees.
        grid: Where they lie: the grid of the patient's image, or one of its spacing.
        channels: A name per channel.
        method: The declaration with all its parameters.
        objective: What they drive.
        model: The network.
        statistics: Of the images of the user.
        seed: Of all random draws.
        history: Objective per step and image under the transforms, ``(steps, N)``.
        scores: Objective of each image without transforms.
        start_scores: The same of the images at the start.
        peaks: Objective of each image at its strongest place.
        names: One per image.
        start: The patient's image that they started from, ``(C, *spatial)``.
        cells: Place of every image in a grid of images; empty without one.
        findings: What else was found.
        warnings: Sentences for readers.
        seconds: Of the optimization, shared by the units that ran together.
        label: The key in results and files.
        reliability: The panel, once it was measured; see :func:`reliability_panel`.
    """

    images: Tensor
    grid: Grid
    channels: tuple[str, ...]
    method: SynthesisMethod
    objective: Objective
    model: ModelFacts
    statistics: ImageStatistics
    seed: int
    history: Tensor
    scores: tuple[float, ...]
    start_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    names: tuple[str, ...]
    start: Tensor | None = None
    cells: tuple[tuple[int, ...], ...] = ()
    findings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    label: str = ""
    reliability: ReliabilityRecord | None = None

    @property
    def image(self) -> Tensor:
        """The image with the largest score, ``(C, *spatial)``."""
        return self.images[max(range(len(self.scores)), key=self.scores.__getitem__)]

    @property
    def unit(self) -> str:
        """Short name of what is driven."""
        return self.objective.slug

    def on_grid(self, index: int = 0) -> Image:
        """One of the images on its grid."""
        return Image(self.images[index], self.grid, self.channels)

    def with_reliability(self, panel: ReliabilityRecord) -> Synthesis:
        """The same with its reliability panel."""
        return replace(self, reliability=panel)

    def record(self, stem: str = "") -> SynthesisRecord:
        """Everything that is written beside the images.

        Args:
            stem: First part of the names of their files.
        """
        files = [self._file(stem, index) for index in range(len(self.images))]
        rows = zip(self.names, files, self.scores, self.start_scores, self.peaks, strict=True)
        cells = self.cells or ((),) * len(self.images)
        return SynthesisRecord(
            method=self.method.name,
            label=self.label,
            meaning=self.method.meaning(),
            formula=self.method.formula,
            paper=self.method.reference,
            parameters=plain(self.method.model_dump(mode="python")),
            unit=self.unit,
            objective=plain(self.objective),
            model=self.model,
            grid=self._grid_facts,
            channels=self.channels,
            images=[
                SynthesizedImage(
                    name=name, file=file, score=score, start=start, peak=peak, cell=cell
                )
                for (name, file, score, start, peak), cell in zip(rows, cells, strict=True)
            ],
            history=self.history.mean(dim=1).tolist(),
            statistics=self._statistics,
            findings=plain(dict(self.findings)),
            seed=self.seed,
            seconds=round(self.seconds, 3),
            software={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "voxplain": __version__,
            },
            warnings=list(self.warnings),
            reliability=self.reliability,
            figure=f"{stem}.png",
        )

    def _file(self, stem: str, index: int) -> str:
        return f"{stem}.nii.gz" if len(self.images) == 1 else f"{stem}-{index}.nii.gz"

    @property
    def _grid_facts(self) -> GridFacts:
        grid = self.grid
        return GridFacts(
            shape=grid.shape,
            affine=grid.affine.tolist(),
            spacing=grid.spacing,
            unit=grid.unit,
            orientation=grid.orientation,
        )

    @property
    def _statistics(self) -> dict[str, Any]:
        found = self.statistics
        return {
            "images": found.images,
            "low": found.low.tolist(),
            "high": found.high.tolist(),
            "mean": found.mean.tolist(),
            "covariance": found.covariance.tolist(),
            "decay": found.decay.tolist(),
        }

    def save(self, folder: str | Path, case: str = "synthesis") -> Path:
        """Writes every image as NIfTI, a figure as PNG, and a JSON record.

        Args:
            folder: Created if it does not exist.
            case: First part of the names of the files, such as the id of the case that was
                started from.

        Returns:
            The path of the record, which is written last.
        """
        stem = f"{safe(case)}_unit-{safe(self.unit)}_desc-{safe(self.label)}_synthesis"
        folder = Path(folder)
        for index in range(len(self.images)):
            write_image(self.on_grid(index), folder / self._file(stem, index))
        atomic_write(folder / f"{stem}.png", png(self.figure.draw()))
        return atomic_write(folder / f"{stem}.json", self.record(stem).to_json() + "\n")

    @cached_property
    def figure(self) -> MapFigure:
        """The figure of the images, not yet drawn."""
        view = SynthesizedView(
            title=f"{title(self.label)}  ·  {self.unit}  ·  model {self.model.name}",
            subtitle=self._subtitle,
            images=self._shown,
            windows=self._windows,
            start=None if self.start is None or self.cells else self._volume(self.start, self.grid),
            notes=self._notes,
        )
        return synthesis_figure(view)

    @property
    def _shown(self) -> list[tuple[str, DisplayVolume]]:
        if not self.cells:
            pairs = zip(self.names, self.images, strict=True)
            return [(name, self._volume(image, self.grid)) for name, image in pairs]
        pictures, grid = mosaic(self.images, self.grid, self.cells, self.statistics.background)
        return [(f"{len(self.images)} pictures", self._volume(pictures, grid))]

    def _volume(self, image: Tensor, grid: Grid) -> DisplayVolume:
        return DisplayVolume.of(image, grid, self.channels).canonical()

    @property
    def _windows(self) -> list[tuple[float, float]]:
        found = self.statistics
        low = torch.minimum(found.low, found.background)
        high = torch.maximum(found.high, found.background)
        return [(a, max(b, a + 1e-6)) for a, b in zip(low.tolist(), high.tolist(), strict=True)]

    @property
    def _subtitle(self) -> str:
        best = max(range(len(self.scores)), key=self.scores.__getitem__)
        gain = f"from {number(self.start_scores[best], 3)} to {number(self.scores[best], 3)}"
        return f"objective {gain} in {len(self.history)} steps, seed {self.seed}"

    @property
    def _notes(self) -> list[str]:
        caption = "" if self.reliability is None else self.reliability.caption
        lines = [caption, "Synthesized, not a patient. Shows what drives a unit, no evidence."]
        return [line for line in lines if line]

    def _repr_html_(self) -> str:
        warnings = "".join(
            f"<p><strong>Note:</strong> {escape(text)}</p>" for text in self.warnings
        )
        return (
            '<div style="max-width:64em;font:14px/1.5 system-ui,sans-serif">'
            f'<img src="{figure_uri(self.figure.draw())}" alt="synthesized images of '
            f'{escape(self.unit)}" style="max-width:100%">'
            f"<p><strong>{escape(title(self.label))}</strong>: {escape(self.method.meaning())} "
            f"{escape(self._subtitle)}.</p>{self._verdicts}{warnings}</div>"
        )

    @property
    def _verdicts(self) -> str:
        if self.reliability is None:
            return ""
        rows = "".join(
            f"<tr><td>{escape(item.item)}</td><td>{escape(item.verdict)}</td>"
            f"<td>{escape(item.in_words)}</td></tr>"
            for item in self.reliability.items
        )
        return f"<table>{rows}</table>"
