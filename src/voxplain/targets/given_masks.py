"""Masks that are given to targets, on the positions of an output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.io import read_mask
from voxplain.targets.base import UnperturbedOutput


def mask_on_output(
    mask: Any, value: int | None, unperturbed: UnperturbedOutput, ignore: int | None
) -> Tensor:
    """Where a mask is inside, ``(B, *spatial)`` bool on the output.

    Args:
        mask: An array on the output or the input, or a file on the grid of the scan.
        value: The label that is inside; every non-zero label if None.
        unperturbed: The output.
        ignore: The label that is never inside.

    Raises:
        TargetError: If it fits neither grid.
    """
    labels = labels_of(mask, unperturbed, ignore)
    inside = labels != 0 if value is None else labels == value
    if ignore is not None:
        inside = inside & (labels != ignore)
    return on_output(inside, unperturbed)


def on_output(inside: Tensor, unperturbed: UnperturbedOutput) -> Tensor:
    """A mask of the output or the input for each image, ``(B, *spatial)`` on the output.

    Raises:
        TargetError: If it fits neither grid.
    """
    shape = unperturbed.output.shape[2:]
    if inside.ndim == len(shape):
        inside = inside.expand(len(unperturbed.output), *inside.shape)
    if len(inside) != len(unperturbed.output):
        raise TargetError(f"{len(inside)} masks for {len(unperturbed.output)} images")
    if inside.shape[1:] == shape:
        return inside.to(unperturbed.output.device)
    if inside.shape[1:] != unperturbed.input_shape:
        raise TargetError(
            f"a mask of shape {tuple(inside.shape[1:])} fits neither the output {tuple(shape)} "
            f"nor the input {tuple(unperturbed.input_shape)}"
        )
    place = unperturbed.known_place("a mask on the grid of the image")
    return place.on_output(inside).to(unperturbed.output.device)


def labels_of(mask: Any, unperturbed: UnperturbedOutput, ignore: int | None) -> Tensor:
    """The labels of a mask as they are given.

    Raises:
        TargetError: If it is a file, and the image has no grid.
    """
    if not isinstance(mask, (str, Path)):
        is_tensor = isinstance(mask, Tensor)
        return mask.as_subclass(Tensor) if is_tensor else torch.as_tensor(np.asarray(mask))
    if unperturbed.image is None:
        raise TargetError("a mask file needs an image on its grid; pass an Image, or an array")
    return unperturbed.image.project(read_mask(mask, unperturbed.image.source_grid, ignore=ignore))


def box_of(box: tuple[tuple[int, int], ...], output: Tensor) -> Tensor:
    """The positions inside of a box of ``(start, stop)`` per axis, ``(B, *spatial)`` bool.

    Raises:
        TargetError: If it does not lie inside the output.
    """
    shape = output.shape[2:]
    inside = len(box) == len(shape) and all(
        0 <= start < stop <= size for (start, stop), size in zip(box, shape, strict=False)
    )
    if not inside:
        raise TargetError(f"{box} does not lie inside an output of shape {tuple(shape)}")
    mask = torch.zeros(len(output), *shape, dtype=torch.bool, device=output.device)
    mask[(slice(None), *(slice(start, stop) for start, stop in box))] = True
    return mask
