"""The gate that half precision has to pass before it is used on a network."""

from __future__ import annotations

from torch import Tensor

from voxplain.attribution.binding import Bound
from voxplain.attribution.passes import INPUT
from voxplain.attribution.rules import Plain
from voxplain.attribution.scene import Scene
from voxplain.attribution.viewing import passes_over
from voxplain.precision import GATE, Precision, agreement, is_half, resolve_precision


def gated(scene: Scene, bound: Bound, images: Tensor) -> Precision:
    """The precision to run in: a half one only where its first gradient agrees with float32.

    Args:
        scene: The network, with the precision that was asked for.
        bound: What is explained.
        images: ``(B, C, *spatial)``; the first one is tried.
    """
    model = scene.model
    precision = resolve_precision(model.precision, model.device, model.dtype)
    if not is_half(precision):
        return precision
    full, half = (_gradient(scene, bound, images[:1], kind) for kind in ("float32", precision))
    return precision if agreement(half, full) >= GATE else "float32"


def _gradient(scene: Scene, bound: Bound, image: Tensor, precision: Precision) -> Tensor:
    model = scene.model.in_precision(precision)
    with model.at_rest():
        passes = passes_over(scene, model, Plain(), bound.field, (INPUT,))
        return passes.run(image, [0]).gradients[INPUT]
