"""Recomputation for one stream: what it would spare, and the block in which it is done."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.passes.base import Passes
from voxplain.engine.recomputation.choice import StageChoice
from voxplain.engine.recomputation.repeated import repeatable
from voxplain.engine.recomputation.saved_profile import SavedProfile, profile_of
from voxplain.engine.recomputation.stages import Stage, recomputed, staged
from voxplain.engine.taps import Tap
from voxplain.errors import VoxplainError
from voxplain.models.failures import quoted
from voxplain.models.rest import KnownOfNetworks

_PROFILES = KnownOfNetworks[SavedProfile]()
_STAGES = KnownOfNetworks[tuple[Stage, ...]]()
_WORTH = 0.9
"""Share of the bytes that may be left for recomputation to be worth its time."""


@dataclass(frozen=True, eq=False)
class Recomputation:
    """Parts of the network of a stream are computed again in the backward pass.

    Attributes:
        passes: Of the stream; its network is at rest.
        context: The images.
        moved: Layers whose values are changed, beside those that the passes read.
    """

    passes: Passes
    context: Context
    moved: tuple[Tap, ...] = ()

    @property
    def refusal(self) -> str | None:
        """Why nothing can be computed again; None where it can."""
        if not self.passes.rule.is_plain:
            return f"the rule {self.passes.rule.name!r} changes how functions are differentiated"
        if self.passes.prefix_user is not None:
            return "several networks share modules"
        if isinstance(self._tried, str):
            return self._tried
        if not self._stages or self.bytes_held > _WORTH * self.bytes_saved:
            return "no part of the network that may run twice saves much"
        return None

    @property
    def bytes_saved(self) -> int:
        """Bytes that autograd saves for one call, without recomputation."""
        return self._profile.saved

    @cached_property
    def bytes_held(self) -> int:
        """Bytes that the backward pass of one call holds at most, with recomputation."""
        return self._choice.held(self._stages)

    def block(self) -> contextlib.AbstractContextManager[None]:
        """A block whose forwards keep the inputs of stages alone."""
        network = self.passes.model.network
        return staged(network, self._stages, recomputed(self._devices))

    @cached_property
    def _example(self) -> Tensor:
        """What one call of the network sees, ``(1, C, *spatial)``."""
        return self.passes.model.admit(self.context.example)

    @property
    def _devices(self) -> list[int] | None:
        """CUDA devices on which a random network may draw; None for one that does not."""
        if not self.passes.model.behavior.is_random:
            return None
        device = self._example.device
        return [device.index or 0] if device.type == "cuda" else []

    @property
    def _kind(self) -> tuple[Any, ...]:
        model, example = self.passes.model, self._example
        call = tuple(example.shape), example.dtype, example.device
        return (model.head, model.precision, model.behavior, *call)

    @cached_property
    def _tried(self) -> SavedProfile | str:
        """What the network saves, or why that cannot be told."""
        model = self.passes.model
        try:
            return _PROFILES.get(
                model.network, self._kind, lambda: profile_of(model, self._example)
            )
        except (VoxplainError, RuntimeError, MemoryError) as error:  # a pass would say so itself
            return f"a forward that counts what is saved fails ({quoted(error)})"

    @property
    def _profile(self) -> SavedProfile:
        if isinstance(self._tried, str):
            raise ValueError("ask for the refusal before")
        return self._tried

    @cached_property
    def _opened(self) -> frozenset[str]:
        return frozenset(tap.module for tap in (*self.passes.taps, *self.moved))

    @cached_property
    def _choice(self) -> StageChoice:
        return StageChoice(self.passes.model.network, self._profile, self._opened)

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        model = self.passes.model

        def tried() -> tuple[Stage, ...]:
            return repeatable(model, self._example, self._choice.stages(), self._devices)

        return _STAGES.get(model.network, (*self._kind, self._opened), tried)
