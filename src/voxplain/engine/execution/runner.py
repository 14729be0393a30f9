"""What runs one stream of one network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.memory import BatchBudget
from voxplain.engine.passes.base import Passes
from voxplain.engine.requests import Slot, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.models.model import Offload


@dataclass(frozen=True, eq=False)
class StreamOutput:
    """The results of one stream for one input.

    Attributes:
        tensors: Per slot.
        difference: S at the end minus S at the start of the lines, where completeness asks for it.
        start_score: S at the start.
        totals: Per slot what the method attributes, where that is not the sum of its map.
        findings: Per slot what else came out, for the sidecar.
    """

    tensors: Mapping[Slot[Any], Tensor]
    difference: float | None = None
    start_score: float | None = None
    totals: Mapping[Slot[Any], float] = field(default_factory=dict)
    findings: Mapping[Slot[Any], dict[str, Any]] = field(default_factory=dict)


class Runner(ABC):
    """Runs one stream of one network.

    Attributes:
        stream: What to run.
        passes: How the network is called.
        budget: How much goes through it at once.
        planned: Passes per image.
    """

    stream: Stream[Any]
    passes: Passes
    budget: BatchBudget
    planned: int
    trial_passes: ClassVar[int]
    """Passes of a trial, at the most."""

    @classmethod
    @abstractmethod
    def batch_budget(
        cls, device: torch.device, limit: int | None, image: Tensor, offload: Offload
    ) -> BatchBudget:
        """How many points or masked images of an image go at once, whole.

        Args:
            device: Where the network runs.
            limit: Bytes for activations; None for a default of the device.
            image: ``(C, *spatial)``.
            offload: What may be done with what autograd saves.
        """

    @classmethod
    @abstractmethod
    def run(
        cls, runners: Sequence[Any], inputs: Sequence[StreamInput], prefix: SharedPrefix | None
    ) -> list[list[StreamOutput]]:
        """The results of each input, per network.

        Args:
            runners: Of this class, for equal streams, one per network.
            inputs: Images, or noisy copies of them.
            prefix: The modules that the networks share.
        """

    @abstractmethod
    def trial(self, item: StreamInput) -> list[Tensor]:
        """What some of the passes give, in tensors that another precision should agree with.

        They are on the CPU; there are none where a few passes tell nothing of the others.

        Args:
            item: An image, or a noisy copy of it.
        """

    @abstractmethod
    def finish(self, images: int) -> None:
        """Completes the log of the passes after the last input of so many images."""
