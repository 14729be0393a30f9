"""A network with what stands beside it in its folder: how images come to it, and its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from voxplain.models.head import StatedActivation


@dataclass(frozen=True)
class Beside:
    """What a folder states of its network; a study that states the same overrides it.

    Attributes:
        preprocess: Steps from an image as it is read to what the network is given.
        window: Sliding windows.
        classes: Names of the output channels.
        activation: What turns the output into probabilities.
        remarks: Sentences for the reader of a map or a prediction.
        missing: What the folder states and is not taken over, in a sentence, by the name of the
            field that would state it.
    """

    preprocess: tuple[Mapping[str, Any], ...] = ()
    window: Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()
    activation: StatedActivation = "auto"
    remarks: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """What it states, by the names of the fields of a spec."""
        stated = {
            "preprocess": self.preprocess,
            "window": self.window,
            "classes": self.classes,
            "activation": self.activation if self.activation != "auto" else None,
        }
        return {name: value for name, value in stated.items() if value}


@dataclass(frozen=True, eq=False)
class OpenedNetwork:
    """A network with its weights, on the CPU, and what its folder states of it.

    Attributes:
        network: The module.
        beside: Empty for all but nnU-Net folders and MONAI bundles.
    """

    network: nn.Module
    beside: Beside = Beside()
