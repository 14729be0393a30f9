"""A network without what it learned: all its weights drawn anew."""

from __future__ import annotations

from torch import Tensor

from voxplain.engine.randomization.plain_weights import with_plain_weights
from voxplain.engine.randomization.reinitialize import recalibrate, reinitialize
from voxplain.engine.randomization.stages import stages
from voxplain.models.copies import copied
from voxplain.models.model import Model


def random_network(model: Model, images: Tensor, seed: int) -> Model:
    """A copy of a model with all weights drawn by their own initializers.

    Args:
        model: Left as it was.
        images: ``(n, C, *spatial)`` of the size that one call sees, on which running statistics
            of batch norms are estimated again.
        seed: Of the new weights.

    Raises:
        ModelError: If the network runs no layer with parameters.
    """
    drawn = copied(with_plain_weights(model))
    paths = stages(drawn, images[:1])
    reinitialize(drawn.network, paths, seed)
    recalibrate(drawn, images, paths)
    return drawn
