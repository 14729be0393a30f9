"""Methods of voxplain as functions, for libraries of metrics such as Quantus."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.attribution.explanation import AnyMethod, AnyTarget
from voxplain.engine.context import References
from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError
from voxplain.models.model import Model


class ExplainFunc(Protocol):
    """What Quantus calls: ``explain_func(model=..., inputs=..., targets=..., device=...)``."""

    def __call__(
        self,
        model: Model | nn.Module,
        inputs: NDArray[Any] | Tensor,
        targets: NDArray[Any] | Tensor | int,
        device: Any = None,
    ) -> NDArray[np.float32]:
        """Maps ``(B, C, *spatial)`` of images ``(B, C, *spatial)``."""


def as_explain_func(
    method: AnyMethod,
    target: AnyTarget | None = None,
    *,
    references: References = None,
    seed: int = 0,
) -> ExplainFunc:
    """A method as the ``explain_func`` of Quantus, in 2-D and 3-D.

    The map of an image does not depend on its batch, and random draws follow the content of the
    image and the seed. The network stays on its device.

    Args:
        method: A name, a mapping with parameters, or a method.
        target: What is explained, for every image; None for the class that Quantus passes with
            each image (for a dense output, its scores where it is predicted).
        references: Other images, for methods that compare with them.
        seed: Of every random draw.

    Returns:
        A function of network, images and classes; it takes arrays or tensors and gives arrays.

    Raises:
        ConfigError: If the method has no map on the grid of the image.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
        >>> explain_func = as_explain_func({"name": "integrated_gradients", "steps": 4})
        >>> images, classes = torch.rand(5, 1, 4, 4).numpy(), torch.arange(5).numpy() % 3
        >>> explain_func(model=network, inputs=images, targets=classes).shape
        (5, 1, 4, 4)
    """
    parsed = parse_method(method)

    def explain_func(
        model: Model | nn.Module,
        inputs: NDArray[Any] | Tensor,
        targets: NDArray[Any] | Tensor | int,
        device: Any = None,  # noqa: ARG001 - Quantus passes it
    ) -> NDArray[np.float32]:
        studied = Model.of(model)
        images = torch.as_tensor(inputs).detach().to(studied.device)
        maps: dict[int, Tensor] = {}
        for own_target, rows in _rows_by_target(target, targets, len(images)):
            attributions = explain(
                studied, images[rows], parsed, own_target, references=references, seed=seed
            )
            if parsed.key not in attributions or attributions[parsed.key].layer is not None:
                raise ConfigError(f"{parsed.key} has no map on the grid of the image")
            maps.update(zip(rows, attributions[parsed.key].map, strict=True))
        stacked = torch.stack([maps[row] for row in range(len(images))])
        return np.asarray(stacked.detach().cpu().float().numpy())

    return explain_func


def _rows_by_target(
    target: AnyTarget | None, targets: NDArray[Any] | Tensor | int, count: int
) -> list[tuple[AnyTarget, list[int]]]:
    """Every target, with the numbers of the images it is explained for."""
    if target is not None:
        return [(target, list(range(count)))]
    labels = torch.as_tensor(targets).flatten().tolist()
    labels = labels * count if len(labels) == 1 else labels
    if len(labels) != count:
        raise ConfigError(f"{len(labels)} targets for {count} images; one class for each of them")
    return [
        (int(label), [row for row, other in enumerate(labels) if other == label])
        for label in dict.fromkeys(labels)
    ]
