"""Copies of a network that share what is not changed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from voxplain.models.hooks import copy_network
from voxplain.models.model import Model


def copied(model: Model, own: Iterable[str] | None = None) -> Model:
    """The same model around a copy of its network; the trained one is never touched.

    Args:
        model: Of which a copy is made.
        own: Paths of modules that get parameters of their own, while all others are shared with
            the model; None copies everything.
    """
    shared: dict[int, Tensor] = {}
    if own is not None:
        modules = [model.network.get_submodule(path) for path in own]
        kept = {id(part) for module in modules for part in module.parameters(recurse=False)}
        shared = {id(part): part for part in model.network.parameters() if id(part) not in kept}
    return Model(
        copy_network(model.network, shared),
        head=model.head,
        window=model.window,
        precision=model.precision,
        name=model.name,
        classes=model.classes,
    )
