"""Guided backpropagation and Deconvnet: another derivative for every rectifier call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, slope_at
from voxplain.engine.rules.graph import RECTIFIER_NODES, unseen_calls
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, caller, is_rectifier
from voxplain.engine.rules.substitutes import clamped, written
from voxplain.errors import RuleError

Functions = Literal["rectifiers", "relu_only"]


@dataclass(frozen=True)
class RectifierRule(Rule):
    """What Guided and Deconvnet share.

    Attributes:
        functions: ``relu_only`` treats ReLU alone, as libraries do that hook modules.
        on_unknown: What to do about a function that may hide a rectifier.
    """

    functions: Functions = "rectifiers"
    on_unknown: OnUnknown = "warn"

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Rectifiers that were called out of sight of the mode, in words."""
        kinds = ("Relu",) if self.functions == "relu_only" else RECTIFIER_NODES
        return unseen_calls(output, image, kinds)


@dataclass(frozen=True)
class Guided(RectifierRule):
    """Gradient passes a rectifier only where both it and the slope are positive.

    ``p = max(0, q) * max(0, f'(x))``; for ReLU ``1[x > 0] * max(0, q)``, with f'(0) = 0 as in
    autograd. Springenberg et al., Striving for simplicity, 2015.
    """

    name: ClassVar[str] = "guided"

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _RectifierMode(self.name, self.functions, self.on_unknown, slopes=True)


@dataclass(frozen=True)
class Deconvnet(RectifierRule):
    """Only positive gradient passes a rectifier; its own mask and slope are ignored.

    ``p = max(0, q)``. Zeiler and Fergus, Visualizing and understanding convolutional networks,
    2014.
    """

    name: ClassVar[str] = "deconvnet"

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _RectifierMode(self.name, self.functions, self.on_unknown, slopes=False)


class _RectifierMode(RuleMode):
    """Treats rectifier calls; tells about functions that may be rectifiers in disguise."""

    def __init__(
        self, name: str, functions: Functions, on_unknown: OnUnknown, *, slopes: bool
    ) -> None:
        super().__init__()
        self._name = name
        self._functions = functions
        self._on_unknown = on_unknown
        self._slopes = slopes
        self._seen = False

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Replaces a rectifier that depends on the image; everything else is native."""
        if not self.depends(*call.operands()):
            return native()
        self._seen = True
        if call.family is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its rectifiers, so the rule {self._name!r} "
                "cannot treat it; use the rule 'plain'"
            )
        if self._treats(call) and self.depends(call.input):
            return self._rectified(call)
        if disguise := rectifier_in_disguise(call, self):
            self.unknown(disguise)
        return native()

    def unknown(self, what: str) -> None:
        """Remarks on, or refuses, what gets the plain gradient although it may rectify."""
        if self._on_unknown == "error":
            raise RuleError(
                f"the rule {self._name!r} does not know {what}, called in {caller()}; "
                "on_unknown: warn gives it the plain gradient"
            )
        remark = f"{what} is not known to the rule {self._name!r} and got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def finish(self) -> None:
        """Says in words when the map is the plain gradient after all."""
        if self._seen and not self.treated:
            what = "ReLU" if self._functions == "relu_only" else "rectifier"
            self.warnings.append(
                f"no {what} was met, so the rule {self._name!r} gives the plain gradient"
            )

    def _treats(self, call: Call) -> bool:
        return call.name == "relu" if self._functions == "relu_only" else is_rectifier(call)

    def _rectified(self, call: Call) -> Any:
        self.treated[call.name] += 1
        slope = None
        if self._slopes:
            value, derivative = slope_at(call.detached(), call.input.detach())
            slope = derivative.clamp(min=0)
        else:
            with torch.no_grad():
                value = call.run()
        result = clamped(call.input, slope, value)
        return written(call, result)


def rectifier_in_disguise(call: Call, mode: RuleMode) -> str | None:
    """The description of a call that selects by the image's own values, else None.

    ``where(x > 0, x, 0)``, ``x * (x > 0)``, ``x[x < 0] = 0`` and ``maximum(x, 0)``.
    """
    if call.family in (OperationKind.SELECT, OperationKind.PRODUCT) and mode.decided_by_data(
        *call.operands()
    ):
        return f"{call.name} with a mask taken from the image (a hand-written rectifier?)"
    if call.name in ("maximum", "minimum"):
        operands = list(call.operands())
        if sum(mode.depends(operand) for operand in operands) == 1:
            return f"{call.name} with a constant (a hand-written rectifier?)"
    return None
