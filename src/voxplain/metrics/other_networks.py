"""Other networks that a network is compared with: other seeds, architectures, permuted labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from voxplain.errors import ConfigError, nearest
from voxplain.models.model import Model

Role = Literal["seed", "architecture", "labels"]
"""How another network differs: by its training seed alone, by its architecture, or by training on
permuted labels, from which there was nothing to learn."""


@dataclass(frozen=True, eq=False)
class OtherNetwork:
    """A network that the network under study is compared with.

    Attributes:
        model: The network.
        differs: How it differs; None where this is not stated, by seed or by architecture.
    """

    model: Model
    differs: Role | None = None

    def has_role(self, role: Role) -> bool:
        """Whether it serves as a network that differs in this way."""
        return role != "labels" if self.differs is None else self.differs == role


AnyNetwork = Model | nn.Module
Networks = Sequence[AnyNetwork | OtherNetwork] | Mapping[str, AnyNetwork | Sequence[AnyNetwork]]
"""Other networks, or by how they differ: ``{"seed": [...], "labels": permuted}``."""


def other_networks(networks: Networks | AnyNetwork, studied: Model) -> tuple[OtherNetwork, ...]:
    """Networks in any accepted form, with how they differ from the one under study.

    Args:
        networks: One or several; bare modules get the head, windows and precision of the network
            under study.
        studied: The network under study.

    Raises:
        ConfigError: If a role is unknown, or an entry is no network.
    """
    if not isinstance(networks, Mapping):
        return tuple(_other_network(*entry, studied) for entry in _entries(networks, "networks"))
    roles: tuple[Role, ...] = get_args(Role)
    for name in networks:
        if name not in roles:
            choices = nearest(str(name), roles)
            raise ConfigError(f"networks: networks do not differ by {name!r}; {choices}")
    return tuple(
        OtherNetwork(_other_network(*entry, studied).model, role)
        for role in roles
        for entry in _entries(networks.get(role, ()), f"networks[{role!r}]")
    )


def _entries(networks: Any, path: str) -> list[tuple[Any, str]]:
    """Every network with its path for errors; a single network is a list of one.

    Iterability does not tell the two apart: iterating over some networks gives their layers.
    """
    if not isinstance(networks, (Sequence, nn.ModuleList)):
        return [(networks, path)]
    return [(network, f"{path}[{number}]") for number, network in enumerate(networks)]


def _other_network(network: Any, path: str, studied: Model) -> OtherNetwork:
    if isinstance(network, OtherNetwork):
        return network
    if isinstance(network, Model):
        return OtherNetwork(network)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{path} is a {type(network).__name__}; give networks: models of voxplain, or modules"
        )
    model = Model(
        network,
        head=studied.head,
        window=studied.window,
        precision=studied.precision,
        offload=studied.offload,
    )
    return OtherNetwork(model)
