"""A trail on one case: the image, the map of every concept over it, and the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor, nn

from voxplain.concepts.links.class_scores import ClassScores
from voxplain.concepts.links.nodes import ClassOutput, ConceptUnits
from voxplain.concepts.trails.find import Trails, ValidatedTrail
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.taps import INPUT
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.viz.strip import StripStep, strip_picture
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import percent


@dataclass(frozen=True, eq=False)
class StripPanel:
    """One concept of a trail on one case.

    Attributes:
        name: Of the concept, with its held-out score.
        layer: Path of its layer.
        map: Mean activation of its units on the grid of the image, ``(*spatial)``.
    """

    name: str
    layer: str
    map: Tensor


@dataclass(frozen=True, eq=False)
class TrailStrip:
    """The panels of a trail on one case, as data.

    Attributes:
        image: Of the case.
        panels: The concepts, in order.
        output: Name of the class.
        prediction: Where it is predicted, ``(*spatial)`` bool; None for a classifier.
        reference: Where the reference shows it; None without one.
        caption: The trail in words.
        remark: What the trail carries, in words.
    """

    image: Image
    panels: tuple[StripPanel, ...]
    output: str
    prediction: Tensor | None
    reference: Tensor | None
    caption: str
    remark: str

    def draw(self) -> Picture.Image:
        """The strip as a picture: a column per step, three planes of a volume."""
        image = self._shown(self.image.data)
        steps = [StripStep("image", ", ".join(self.image.channels[:1]))]
        steps += [
            StripStep(panel.name, panel.layer or "image", self._shown(panel.map[None]))
            for panel in self.panels
        ]
        masks = [None if mask is None else self._shown(mask[None].float()) for mask in self._masks]
        steps.append(StripStep(self.output, "prediction, dashed: reference", None, *masks))
        return strip_picture(image, steps, self._place(masks[0], steps[-2].map), self._texts)

    @property
    def _masks(self) -> tuple[Tensor | None, Tensor | None]:
        return self.prediction, self.reference

    @property
    def _texts(self) -> tuple[str, ...]:
        note = "Research use. Shows what the network used, not what is true."
        return (self.caption, f"{self.remark} {note}")

    def _shown(self, data: Tensor) -> DisplayVolume:
        return DisplayVolume.of(data, self.image.grid).canonical()

    def _place(
        self, prediction: DisplayVolume | None, last: DisplayVolume | None
    ) -> tuple[int, int, int]:
        """A voxel of the prediction near its center; else the strongest one of the last map."""
        if prediction is not None and prediction.data.any():
            inside = np.argwhere(prediction.data[0] > 0)
            nearest = np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()
            x, y, z = inside[nearest].tolist()
            return x, y, z
        if last is None:
            return 0, 0, 0
        x, y, z = np.unravel_index(int(np.nanargmax(np.abs(last.data[0]))), last.shape)
        return int(x), int(y), int(z)


def trail_strip(
    model: Model | nn.Module, case: CohortCase, trails: Trails, chosen: ValidatedTrail
) -> TrailStrip:
    """The panels of a trail on one case.

    Args:
        model: The network, without windows.
        case: The case.
        trails: The analysis.
        chosen: One of its trails.

    Raises:
        ModelError: If a layer of the trail has no places in the image.
    """
    context = Context.open(model, case.image)
    nodes = {node.name: node for node in trails.links.nodes}
    on_trail = [nodes[name] for name in chosen.trail.nodes]
    seen = observe(context, tuple(node.tap for node in on_trail))
    maps = [_map_of(context, node, seen.values[node.tap]) for node in on_trail]
    output = next(each for each in trails.links.outputs if each.name == chosen.trail.output)
    prediction, reference = _masks_of(context, case, output)
    return TrailStrip(
        case.image,
        tuple(
            StripPanel(node.label, node.tap.path, map)
            for node, map in zip(on_trail, maps, strict=True)
        ),
        output.name,
        prediction,
        reference,
        trails.caption(chosen.trail),
        in_words(chosen),
    )


def in_words(chosen: ValidatedTrail) -> str:
    """What a trail carries, against random trails."""
    found = chosen.validation
    kept, lost = found.kept_logit, found.lost_logit
    verdict = "Validated" if found.validated else "Not validated"
    return (
        f"{verdict}: alone it keeps {percent(kept.value)} of the logit of {chosen.trail.output} "
        f"(random trails {percent(kept.random)}) and {percent(found.kept_dice.value)} of Dice "
        f"({percent(found.kept_dice.random)}); without it {percent(lost.value)} of the logit is "
        f"lost ({percent(lost.random)})."
    )


def _map_of(context: Context, node: ConceptUnits, activation: Tensor) -> Tensor:
    """Mean activation of units on the image, ``(*spatial)``."""
    directions = node.units.directions
    if directions is None:
        units = activation[list(node.units.channels)]
    else:
        unit = directions.to(activation) / directions.to(activation).norm(dim=1, keepdim=True)
        units = torch.einsum("dk,k...->d...", unit, activation)
    mean = units.mean(dim=0, keepdim=True)
    if node.tap == INPUT:
        return mean[0].cpu()
    return context.layers.on_image(node.tap, mean)[0].cpu()


def _masks_of(
    context: Context, case: CohortCase, output: ClassOutput
) -> tuple[Tensor | None, Tensor | None]:
    """Prediction and reference of a class on the grid of the image."""
    scores = ClassScores(context, case, [output])
    predicted = scores.predicted(0)
    place = scores.unperturbed.place
    prediction = None if predicted is None or place is None else place.on_image(predicted).cpu()
    reference = None if case.labels is None else output.reference(case.labels).cpu()
    return prediction, reference
