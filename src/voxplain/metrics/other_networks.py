"""Fellows: other networks that are asked the same, and how each differs from the one studied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from voxplain.errors import ConfigError, nearest
from voxplain.models.model import Model

Role = Literal["seed", "architecture", "labels"]
"""How a network differs: by its training seed alone, by its architecture, or by having been
trained on permuted labels, so that there was nothing to learn."""


@dataclass(frozen=True, eq=False)
class OtherNetwork:
    """Another network that is asked the same.

    Attributes:
        model: The network.
        differs: How; None where nobody said, by seed or by architecture.
    """

    model: Model
    differs: Role | None = None

    def is_one(self, role: Role) -> bool:
        """Whether it can stand for networks that differ in this way."""
        return role != "labels" if self.differs is None else self.differs == role


AnyNetwork = Model | nn.Module
Networks = Sequence[AnyNetwork | OtherNetwork] | Mapping[str, AnyNetwork | Sequence[AnyNetwork]]
"""Other networks, or by how they differ: ``{"seed": [...], "labels": permuted}``."""


def other_networks(networks: Networks | AnyNetwork, studied: Model) -> tuple[OtherNetwork, ...]:
    """The fellows that some networks are.

    Args:
        networks: One or several; bare modules are asked as the network under study is.
        studied: The network under study.

    Raises:
        ConfigError: If a role has no meaning, or an entry is no network.
    """
    if not isinstance(networks, Mapping):
        return tuple(_other_network(*entry, studied) for entry in _entries(networks, "networks"))
    roles: tuple[Role, ...] = get_args(Role)
    for name in networks:
        if name not in roles:
            known = nearest(str(name), roles)
            raise ConfigError(f"networks: networks do not differ by {name!r}; {known}")
    return tuple(
        OtherNetwork(_other_network(*entry, studied).model, role)
        for role in roles
        for entry in _entries(networks.get(role, ()), f"networks[{role!r}]")
    )


def _entries(networks: Any, place: str) -> list[tuple[Any, str]]:
    """Every network with its place; one that stands alone is a list of one.

    Some networks can be walked through too, which gives their layers.
    """
    if not isinstance(networks, (Sequence, nn.ModuleList)):
        return [(networks, place)]
    return [(network, f"{place}[{number}]") for number, network in enumerate(networks)]


def _other_network(network: Any, place: str, studied: Model) -> OtherNetwork:
    if isinstance(network, OtherNetwork):
        return network
    if isinstance(network, Model):
        return OtherNetwork(network)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{place} is a {type(network).__name__}; give networks: models of voxplain, or modules"
        )
    model = Model(network, head=studied.head, window=studied.window, precision=studied.precision)
    return OtherNetwork(model)
