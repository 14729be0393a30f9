"""A network asked many times about one image that is changed a little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from voxplain.engine.acceleration.incremental.boxes import BoxSet
from voxplain.engine.acceleration.incremental.cache import ActivationCache, CachedActivation
from voxplain.engine.acceleration.incremental.followed import IncrementalTensor
from voxplain.engine.acceleration.incremental.step import MOST
from voxplain.engine.acceleration.incremental.value import PartialValue
from voxplain.engine.taps import Changes, tapping
from voxplain.errors import InputError, is_out_of_memory
from voxplain.models.model import Model

Box = tuple[slice, ...]


class Incremental:
    """Exact outputs for copies of an image that differ from it in a box each.

    What the network computes for the image itself is kept; of every later forward only the cone
    of the box is computed: each operator on the cells that it changes, with the halo that they
    read. From the first operator on that mixes all positions (normalization by the statistics of
    the data, global pooling, attention), or whose cone fills most of the grid, the forward goes on
    with full tensors.

    Args:
        model: Its parameters must stay as they are as long as this is used.
        image: ``(C, *spatial)``.
    """

    def __init__(self, model: Model, image: Tensor) -> None:
        self.model = model
        self.image = model.admit(image.detach())
        self._memo = ActivationCache(model.network)
        self._base = CachedActivation(self.image[None].clone(), self.image.device)
        self._followable = True

    @property
    def nbytes(self) -> int:
        """Bytes of the activations that are kept."""
        return self._base.nbytes + self._memo.nbytes

    @property
    def followable(self) -> bool:
        """False once the network has done what only plain forwards do right; they follow then."""
        return self._followable

    def outputs(self, inputs: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The outputs for changed images.

        Args:
            inputs: ``(k, C, *spatial)``.
            boxes: Per image the box outside of which it equals the unperturbed one.

        Returns:
            ``(k, K, ...)``, as a plain forward gives it, up to rounding.

        Raises:
            InputError: If the images have another shape, or there is not one box for each.
        """
        shape = tuple(self.image.shape[1:])
        if inputs.shape[1:] != self.image.shape or len(boxes) != len(inputs):
            raise InputError(
                f"{len(boxes)} boxes for inputs of shape {tuple(inputs.shape)}; there must be one "
                f"for each input, of shape {tuple(self.image.shape)}"
            )
        spans = np.array([_ends(box, shape) for box in boxes], dtype=np.int64)
        common = BoxSet.around(spans[..., 0], spans[..., 1], shape)
        cuts = torch.stack([inputs[place] for place in common.places()])
        return self._outputs(cuts, common, lambda: self.model.admit(inputs))

    def outputs_of(self, patches: Tensor, starts: Sequence[Sequence[int]]) -> Tensor:
        """The outputs for the image with something else in boxes of one size.

        Args:
            patches: What is in them, ``(k, C, *size)``.
            starts: First voxel of each box; the boxes lie inside the image.

        Returns:
            ``(k, K, ...)``.
        """
        at = np.asarray(starts, dtype=np.int64).reshape(len(patches), -1)
        boxes = BoxSet(at, tuple(patches.shape[2:]))
        if patches.ndim != self.image.ndim + 1 or not boxes.inside(self.image.shape[1:]):
            raise InputError(
                f"boxes of shape {tuple(patches.shape[2:])} that do not all lie inside an image "
                f"of shape {tuple(self.image.shape[1:])}"
            )
        value = PartialValue(self._base, len(patches), boxes, self.model.admit(patches))
        return self._outputs(patches, boxes, value.whole)

    def outputs_with_changes(self, changes: Changes, count: int) -> Tensor:
        """The outputs with other values at some layers; what lies before them is not recomputed.

        Args:
            changes: By tap, a function of the activations ``(count, ...)`` that gives others.
            count: Number of copies of the image.

        Returns:
            ``(count, K, ...)``.
        """

        def forward(images: Tensor) -> Tensor:
            with tapping(self.model.network, tuple(changes), changes):
                return self.model(images)

        value = PartialValue(self._base, count)
        return self._run(forward, value, lambda: self.image.expand(value.shape).clone())

    def _outputs(self, patches: Tensor, boxes: BoxSet, whole: Callable[[], Tensor]) -> Tensor:
        if boxes.share(self.image.shape[1:]) > MOST:
            with self._at_rest():
                return self.model(whole())
        patches = self.model.admit(patches)
        return self._run(self.model, PartialValue(self._base, len(patches), boxes, patches), whole)

    def _run(
        self, forward: Callable[[Tensor], Tensor], value: PartialValue, whole: Callable[[], Tensor]
    ) -> Tensor:
        with self._at_rest():
            if self._followable:
                try:
                    output = forward(IncrementalTensor(value, self._memo, self._base))
                    return (
                        output.plain().clone() if isinstance(output, IncrementalTensor) else output
                    )
                except Exception as error:
                    # A network may ask of a tensor what only plain ones give; a fault of its own
                    # comes again below.
                    if is_out_of_memory(error):
                        raise
                    self._followable = False
            return forward(whole())

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Under ``no_grad``: inference mode would hide operators behind composite ones."""
        with self.model.at_rest(), torch.inference_mode(False), torch.no_grad():
            yield


def _ends(box: Box, shape: Sequence[int]) -> list[tuple[int, int]]:
    return [part.indices(cells)[:2] for part, cells in zip(box, shape, strict=True)]
