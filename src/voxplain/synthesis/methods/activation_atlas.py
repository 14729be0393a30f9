"""An atlas of a layer: its activations over many cases in two dimensions, and what drives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import foreground
from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.observation import Observation, observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.synthesis.methods.activation_grid import DirectionMethod
from voxplain.synthesis.methods.base import Synthesized, registered
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.reading import log_scores, meaning_of_output
from voxplain.synthesis.workbench import Workbench

Array = NDArray[np.float64]


@registered
class ActivationAtlas(DirectionMethod):
    """Activations of a layer over many cases, laid out by likeness, each region with a picture.

    Activations at random places of the foreground are embedded in two dimensions and averaged over
    a grid; a picture shows what drives each mean. For one class, the places are those where the
    network predicts it.

    Attributes:
        predicted: The class whose places are taken; None for all.
        places: Per case.
        cells: Of the grid, per axis.
        fewest: Places that a cell needs for a picture.
        embedding: ``tsne`` keeps neighbors, ``pca`` the two largest axes.
    """

    formula = "argmax dot(A(u), a) cos(A(u), a)^power for the mean a of each cell of an embedding"
    reference = "Carter et al., 2019"
    name: Literal["activation_atlas"] = "activation_atlas"
    predicted: int | None = Field(default=None, ge=0, description="class of the places")
    places: int = Field(default=64, ge=1, description="per case")
    cells: int = Field(default=6, ge=1, description="of the grid, per axis")
    fewest: int = Field(default=3, ge=1, description="places of a cell with a picture")
    embedding: Literal["tsne", "pca"] = "tsne"

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """The layer of every unit.

        Raises:
            ConfigError: Without cases, with too few places, or without scikit-learn.
        """
        if bench.cohort is None:
            raise ConfigError("an activation atlas needs cases; give a cohort or several images")
        return [self._of_layer(bench, bench.cohort, unit) for unit in units]

    def _of_layer(self, bench: Workbench, cohort: Cohort, unit: Objective) -> Synthesized:
        layer = self._layer_of(unit)
        sampled = [
            self._at_places(bench, case.image, layer, f"{bench.seed}/{case.id}") for case in cohort
        ]
        vectors = torch.cat(sampled)
        if len(vectors) < max(4, self.fewest):
            where = "" if self.predicted is None else f" where class {self.predicted} is predicted"
            raise ConfigError(f"the cases hold {len(vectors)} places{where}, too few for an atlas")
        planar = embedded(vectors.numpy(), self.embedding, bench.seed)
        index = _cells(planar, self.cells)
        kept = [cell for cell in sorted(set(index)) if index.count(cell) >= self.fewest]
        if not kept:
            raise ConfigError(
                f"no cell of the atlas holds {self.fewest} of {len(vectors)} places; "
                "take fewer cells"
            )
        chosen = [torch.tensor([each == cell for each in index]) for cell in kept]
        directions = torch.stack([vectors[rows].mean(dim=0) for rows in chosen])
        counts = [int(rows.sum()) for rows in chosen]
        names = [f"cell {row} {column}" for row, column in kept]
        found = self.pictures(bench, unit, directions, kept, names)
        found.findings.update({"layer": layer, "places": counts, "predicted": self.predicted})
        return found

    def _at_places(self, bench: Workbench, image: Image, layer: str, key: str) -> Tensor:
        """Activations at random places of an image, ``(places, K)``."""
        context = Context.open(bench.model, image, bench.seed)
        seen = observe(context, (Tap(layer),))
        allowed = torch.stack([foreground(channel) for channel in image.data]).any(dim=0)
        if self.predicted is not None:
            allowed = allowed & self._predicted_at(bench, context, seen)
        voxels = allowed.nonzero()
        order = torch.randperm(len(voxels), generator=generator("atlas", key))[: self.places]
        return _vectors(seen, Tap(layer), voxels[order].cpu()).double().cpu()

    def _predicted_at(self, bench: Workbench, context: Context, seen: Observation) -> Tensor:
        """Where the network predicts the class, on the grid of the image."""
        meaning = meaning_of_output(bench.model, context.example)
        scores = log_scores(seen.output, meaning)
        one = scores.shape[1] == 1
        label = (scores[:, 0] > 0).long() if one else scores.argmax(dim=1)
        holds = torch.eq(label, torch.full_like(label, self.predicted or 0))[0].cpu()
        if holds.ndim == 0:
            return holds.expand(context.shape)
        if tuple(holds.shape) == context.shape:
            return holds
        cells = holds[None, None].float()
        resized = torch.nn.functional.interpolate(cells, size=context.shape, mode="nearest")
        return resized[0, 0].bool()


def _vectors(seen: Observation, tap: Tap, voxels: Tensor) -> Tensor:
    """The activations of the cells nearest to voxels, ``(n, K)``."""
    values, layers = seen[tap], seen.layers
    if layers.layout is not None:
        placed = seen.on_image(tap, mode="nearest")
        return placed[(slice(None), *voxels.T)].T
    geometry = layers.placed_geometry(tap)
    axes = zip(voxels.T, geometry.start, geometry.stride, geometry.shape, strict=True)
    cells = [
        ((line - start) / stride + 0.5).floor().long().clamp(0, size - 1)
        for line, start, stride, size in axes
    ]
    return values[(slice(None), *cells)].T


def embedded(vectors: Array, kind: str, seed: int) -> Array:
    """Vectors ``(n, K)`` in two dimensions, ``(n, 2)``, by their directions.

    Raises:
        ConfigError: If scikit-learn is missing.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError:
        raise ConfigError(
            "an activation atlas needs scikit-learn; install it with pip install scikit-learn"
        ) from None
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.maximum(lengths, 1e-12)
    count = min(50, *directions.shape)
    reduced: Array = PCA(count, random_state=seed).fit_transform(directions)
    if kind == "pca":
        planar = np.zeros((len(reduced), 2))
        planar[:, : min(2, count)] = reduced[:, :2]
        return planar
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne: Any = TSNE(2, init="random", perplexity=perplexity, random_state=seed)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)


def _cells(planar: Array, side: int) -> list[tuple[int, int]]:
    """The cell of every point in a grid over their range."""
    low, high = planar.min(axis=0), planar.max(axis=0)
    share = (planar - low) / np.maximum(high - low, 1e-12)
    index = np.minimum((share * side).astype(int), side - 1)
    return [(int(row), int(column)) for row, column in index]
