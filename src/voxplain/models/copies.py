"""Copies of a model, which may share parameters with it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from voxplain.models.hooks import copy_network
from voxplain.models.model import Model


def copied(model: Model, own: Iterable[str] | None = None) -> Model:
    """The model with a copy of its network.

    Args:
        model: Left as it was.
        own: Paths of modules whose own parameters are copied, while all others are shared with the
            model; None copies all parameters.
    """
    shared: dict[int, Tensor] = {}
    if own is not None:
        modules = [model.network.get_submodule(path) for path in own]
        own_parameters = (
            tensor for module in modules for tensor in module.parameters(recurse=False)
        )
        copied_ids = set(map(id, own_parameters))
        parameters = model.network.parameters()
        shared = {id(tensor): tensor for tensor in parameters if id(tensor) not in copied_ids}
    return model.twin(copy_network(model.network, shared))
