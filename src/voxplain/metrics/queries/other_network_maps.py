"""Maps of the same image by other networks, and which networks can be compared at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.errors import VoxplainError
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.maps import Undefined
from voxplain.metrics.other_networks import OtherNetwork, Role
from voxplain.metrics.re_explain import explain_again
from voxplain.models.model import Model


@dataclass(frozen=True)
class OtherNetworkMaps(Query):
    """Maps of the same image by other networks, for all methods together.

    Attributes:
        differs: How the networks differ from the one under study.
    """

    explains: ClassVar[bool] = True

    differs: Role

    def cost(self, context: Context) -> int:
        return 1

    def networks(self, networks: Sequence[OtherNetwork]) -> int:
        return sum(other.has_role(self.differs) for other in networks)

    def run(self, context: MetricContext) -> dict[str, dict[str, Tensor]]:
        """Per network, by the key of the method, a map ``(*spatial)``."""
        chosen = [other for other in context.networks if other.has_role(self.differs)]
        if not chosen:
            raise Undefined(_NO_NETWORK[self.differs])
        names = _distinct(other.model.name for other in chosen)
        return {
            name: context.cached(other, partial(_maps_of, other, context))
            for name, other in zip(names, chosen, strict=True)
        }


_NO_NETWORK: dict[Role, str] = {
    "seed": 'there is no other network that differs by its training seed; pass networks={"seed": '
    "[...]}, or name another model of the same architecture in the study",
    "architecture": "there is no other network of another architecture; pass "
    'networks={"architecture": [...]}, or name one in the study',
    "labels": "there is no other network that was trained on permuted labels; pass "
    'networks={"labels": [...]}, or name one of the same architecture in the study, with labels: '
    "permuted",
}


def _maps_of(other: OtherNetwork, context: MetricContext) -> dict[str, Tensor]:
    """By the key of the method, the map of another network, ``(*spatial)`` float64."""
    _require_comparable(other.model, context)
    maps = explain_again(context.with_model(other.model), context.input.image[None])
    return {name: values[0].double().sum(dim=0) for name, values in maps.items()}


def _require_comparable(model: Model, context: MetricContext) -> None:
    """Refuses networks to which the weight field of the target cannot be applied.

    Raises:
        Undefined: With what does not fit.
    """
    if context.bound.field.layer is not None:
        raise Undefined("the target is a unit of a layer, and other networks have other units")
    studied = context.engine.model
    _require_same(model, "uses", (model.device, model.dtype), (studied.device, studied.dtype))
    shapes = _output_shape(model, context), context.bound.unperturbed.output.shape[1:]
    _require_same(model, "gives an output of shape", *map(tuple, shapes))


def _require_same(
    model: Model, what: str, theirs: tuple[object, ...], ours: tuple[object, ...]
) -> None:
    if theirs != ours:
        own, expected = (f"({', '.join(map(str, values))})" for values in (theirs, ours))
        raise Undefined(
            f"the network {model.name} {what} {own}, and the one under study {expected}"
        )


def _output_shape(model: Model, context: MetricContext) -> torch.Size:
    context.forwards += 1
    try:
        return model.output(context.input.image[None], context.engine.spacing).shape[1:]
    except VoxplainError as error:
        raise Undefined(f"the network {model.name} cannot take this image: {error}") from error


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, numbered where they repeat: bare modules are all called by their class."""
    distinct: list[str] = []
    for name in names:
        earlier = sum(other.partition(" #")[0] == name for other in distinct)
        distinct.append(f"{name} #{earlier + 1}" if earlier else name)
    return distinct
