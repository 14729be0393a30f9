"""What methods of synthesis work with: the network, the images of the user, and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.cohort import Cohort
from voxplain.engine.network_layers import NetworkLayers
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.synthesis.extent import (
    Extent,
    coarsest_stride,
    free_surface,
    image_surface,
    strongest_window,
)
from voxplain.synthesis.image_statistics import ImageStatistics
from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.optimizer import Progress, drive
from voxplain.synthesis.reading import Reader, Reading
from voxplain.synthesis.surface import Surface


@dataclass(frozen=True, eq=False)
class Workbench:
    """A network and the images of a user.

    Attributes:
        model: The network.
        statistics: Of the images.
        image: The image of a patient, for methods that start from one.
        cohort: Cases, for methods that look at many.
        seed: Of all random draws.
        memory: Bytes for saved activations; None for a default of the device.
        progress: Called with steps done and planned.
    """

    model: Model
    statistics: ImageStatistics
    image: Image | None = None
    cohort: Cohort | None = None
    seed: int = 0
    memory: int | None = None
    progress: Progress | None = None

    def needed_image(self, method: str) -> Image:
        """The image of a patient.

        Raises:
            ConfigError: If there is none.
        """
        if self.image is None:
            raise ConfigError(f"{method} starts from an image; give one instead of statistics")
        return self.image

    def free_surface(self, objectives: Sequence[Objective], extent: Extent) -> Surface:
        """Where images from noise are synthesized."""
        return free_surface(self.model, self.statistics, objectives, extent)

    def start(self, method: str, objective: Objective) -> tuple[Surface, Tensor]:
        """Where an image that starts from the patient's lies, and that start ``(1, C, ...)``.

        For a network with windows this is the window in which the objective is largest.
        """
        image = strongest_window(self.model, self.needed_image(method), objective)
        return image_surface(image, self.statistics, self.model), self.model.admit(image.data)[None]

    def keys(self, objective: Objective, count: int) -> tuple[str, ...]:
        """Keys of the random draws of images of one unit."""
        return tuple(f"{self.seed}/{objective.slug}/{number}" for number in range(count))

    def drive(self, jobs: Sequence[SynthesisJob], recipe: Recipe) -> list[Drive]:
        """Synthesizes the images of jobs."""
        return drive(self.model, jobs, recipe, self.memory, self.progress)

    def reader(self, images: Tensor, units: Sequence[Objective] = ()) -> Reader:
        """What reads images of this size."""
        taps = tuple(tap for unit in units for tap in unit.taps)
        return Reader(self.model, images[:1], taps)

    def read(self, images: Tensor, units: Sequence[Objective]) -> Reading:
        """What the network makes of images, at the layers of units, without gradients."""
        with torch.no_grad(), self.model.at_rest(), self.model.precise():
            return self.reader(images, units)(images)

    def scores(self, images: Tensor, units: Sequence[Objective]) -> list[Tensor]:
        """The objectives of images, ``(B,)`` each."""
        reading = self.read(images, units)
        return [unit.value(reading).cpu() for unit in units]

    def layers(self, images: Tensor) -> NetworkLayers:
        """The layers of the network on images of this size."""
        with self.model.at_rest():
            return self.reader(images).layers

    def strides(self, images: Tensor) -> tuple[int, ...]:
        """The coarsest stride of the network per axis."""
        with self.model.at_rest():
            return coarsest_stride(self.reader(images))


def stacked(start: Tensor, count: int) -> Tensor:
    """The start of several images of one unit."""
    return torch.cat([start] * count)
