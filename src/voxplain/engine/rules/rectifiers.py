"""Guided backpropagation and Deconvnet: other derivatives of rectifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, value_and_derivative
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, caller, is_rectifier
from voxplain.engine.rules.substitutes import with_clamped_gradient, write_result
from voxplain.engine.rules.visibility import RECTIFIER_NODES, unseen_calls
from voxplain.errors import RuleError

Functions = Literal["rectifiers", "relu_only"]


@dataclass(frozen=True)
class RectifierRule(Rule):
    """Base of the rules that replace the derivatives of rectifiers.

    Attributes:
        functions: ``relu_only`` replaces ReLU alone, as libraries with module hooks do.
        on_unknown: Whether functions that may contain a rectifier are an error or a warning.
    """

    functions: Functions = "rectifiers"
    on_unknown: OnUnknown = "warn"

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Descriptions of rectifiers that the mode did not see."""
        kinds = ("Relu",) if self.functions == "relu_only" else RECTIFIER_NODES
        return unseen_calls(output, image, kinds)


@dataclass(frozen=True)
class Guided(RectifierRule):
    """Guided backpropagation: ``p = max(0, q) * max(0, f'(x))`` at every rectifier.

    For ReLU that is ``1[x > 0] * max(0, q)``, with f'(0) = 0 as in autograd. Springenberg et al.,
    Striving for simplicity, 2015.
    """

    name: ClassVar[str] = "guided"

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _RectifierMode(self.name, self.functions, self.on_unknown, slopes=True)


@dataclass(frozen=True)
class Deconvnet(RectifierRule):
    """Deconvnet: ``p = max(0, q)`` at every rectifier, whatever its own derivative.

    Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014.
    """

    name: ClassVar[str] = "deconvnet"

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _RectifierMode(self.name, self.functions, self.on_unknown, slopes=False)


class _RectifierMode(RuleMode):
    """Replaces the derivative of rectifiers and reports calls that may be hand-written ones."""

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
        """Replaces the derivative of a rectifier of the image; runs all other calls unchanged."""
        if not self.depends(*call.operands()):
            return native()
        self._seen = True
        if call.kind is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its rectifiers, so the rule {self._name!r} "
                "cannot treat it; use the rule 'plain'"
            )
        if self._treats(call) and self.depends(call.input):
            return self._rectified(call)
        if description := hand_written_rectifier(call, self):
            self.report_unknown(description)
        return native()

    def report_unknown(self, function: str) -> None:
        """Warns about, or refuses, a function that may contain a rectifier."""
        if self._on_unknown == "error":
            raise RuleError(
                f"the rule {self._name!r} does not know {function}, called in {caller()}; "
                "on_unknown: warn gives it the plain gradient"
            )
        remark = f"{function} is not known to the rule {self._name!r} and got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def finish(self) -> None:
        """Adds a warning if no rectifier was met, so that the map is the plain gradient."""
        if self._seen and not self.treated:
            kind = "ReLU" if self._functions == "relu_only" else "rectifier"
            self.warnings.append(
                f"no {kind} was met, so the rule {self._name!r} gives the plain gradient"
            )

    def _treats(self, call: Call) -> bool:
        return call.name == "relu" if self._functions == "relu_only" else is_rectifier(call)

    def _rectified(self, call: Call) -> Any:
        self.treated[call.name] += 1
        slope = None
        if self._slopes:
            value, derivative = value_and_derivative(call.detached(), call.input.detach())
            slope = derivative.clamp(min=0)
        else:
            with torch.no_grad():
                value = call.run()
        result = with_clamped_gradient(call.input, slope, value)
        return write_result(call, result)


def hand_written_rectifier(call: Call, mode: RuleMode) -> str | None:
    """A description of a call that may be a hand-written rectifier, else None.

    Such calls select by the image's own values: ``where(x > 0, x, 0)``, ``x * (x > 0)``,
    ``x[x < 0] = 0`` and ``maximum(x, 0)``.
    """
    if call.kind in (OperationKind.SELECT, OperationKind.PRODUCT) and mode.is_data_dependent(
        *call.operands()
    ):
        return f"{call.name} with a mask taken from the image (a hand-written rectifier?)"
    if call.name in ("maximum", "minimum"):
        operands = list(call.operands())
        if sum(mode.depends(operand) for operand in operands) == 1:
            return f"{call.name} with a constant (a hand-written rectifier?)"
    return None
