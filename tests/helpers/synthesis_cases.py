"""Small networks and images for synthesis, in two and three dimensions."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from voxplain.image import Grid, Image
from voxplain.synthesis import ImageStatistics, measure
from voxplain.synthesis.surface import Surface

SHAPE = (12, 10, 8)
SPACING = (1.0, 1.5, 3.0)


class TwoStages(nn.Module):
    """Two convolutions and a head; on one slice it is the same in 2-D and 3-D."""

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3, flat: bool = False):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        kernel = (3, 3) if rank == 2 else (1, 3, 3) if flat else (3, 3, 3)
        padding = tuple(size // 2 for size in kernel)
        self.first = convolution(channels, 6, kernel, padding=padding)
        self.second = convolution(6, 5, kernel, padding=padding)
        self.head = convolution(5, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.tanh(self.first(image)))))


def network(rank: int = 2, seed: int = 0, **options: object) -> TwoStages:
    """Untrained, the same for the same seed."""
    torch.manual_seed(seed)
    return TwoStages(rank, **options).eval()  # type: ignore[arg-type]


def one_slice(planar: TwoStages) -> TwoStages:
    """The same network for volumes of one slice."""
    solid = TwoStages(3, flat=True).eval()
    weights = planar.state_dict()
    solid.load_state_dict({k: v[:, :, None] if v.ndim == 4 else v for k, v in weights.items()})
    return solid


def images(rank: int = 2, count: int = 4, channels: int = 2) -> list[Image]:
    """Smooth random images inside a body, on anisotropic voxels."""
    random = np.random.default_rng(0)
    shape = SHAPE[:rank]
    found = []
    for _ in range(count):
        rows = [gaussian_filter(random.normal(size=shape), 1.0) for _ in range(channels)]
        data = torch.from_numpy(3 * np.stack(rows)).float()
        data[(slice(None), *(slice(0, 4),) * rank)] = 0
        found.append(Image(data, Grid.default(shape, SPACING[:rank]), tuple("ab"[:channels])))
    return found


def deeper(image: Image) -> Image:
    """The image as a volume of one slice."""
    grid = image.grid
    solid = Grid.default((1, *grid.shape), (1.0, *grid.spacing))
    return Image(image.data[:, None], solid, image.channels)


def surface(rank: int = 2, grid: Grid | None = None, channels: int = 2) -> Surface:
    """A grid with the statistics of :func:`images`, in float64."""
    found: ImageStatistics = measure(images(rank, channels=channels))
    return Surface(grid or found.grid, found, torch.zeros(1, dtype=torch.float64))
