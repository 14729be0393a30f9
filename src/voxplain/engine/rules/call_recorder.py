"""A mode that changes nothing and records every call that depends on the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.rectifiers import hand_written_rectifier
from voxplain.models.hooks import add_hook


@dataclass
class RecordedCalls:
    """All calls of one function.

    Attributes:
        function: Canonical name.
        kind: Name of its mathematical kind.
        nonlinear: Whether the calls need a rule.
        count: Number of calls that depend on the image.
        layers: Paths of the modules that made them, in order.
        shapes: Operand shapes of the first call.
    """

    function: str
    kind: str
    nonlinear: bool
    count: int = 0
    layers: list[str] = field(default_factory=list)
    shapes: tuple[tuple[int, ...], ...] = ()


class CallRecorder(RuleMode):
    """Counts calls by function, with the paths of the layers that made them.

    Args:
        path: Returns the path of the layer that is running.

    Attributes:
        calls: Recorded calls by function name and whether they need a rule.
        unknown: Functions that are not in the table of functions.
        hand_written: Selections by the image's own values, which may be rectifiers.
    """

    def __init__(self, path: Callable[[], str]) -> None:
        super().__init__()
        self.calls: dict[tuple[str, bool], RecordedCalls] = {}
        self.unknown: dict[str, None] = {}
        self.hand_written: dict[str, None] = {}
        self._path = path

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Records the call and runs it."""
        if self.depends(*call.operands()):
            self._record(call)
        return native()

    def report_unknown(self, function: str) -> None:
        """Records a function that is not in the table of functions."""
        self.unknown[f"{function} in {self._path()}"] = None

    def _record(self, call: Call) -> None:
        nonlinear = needs_rule(call, self)
        calls = self.calls.get((call.name, nonlinear))
        if calls is None:
            calls = RecordedCalls(call.name, call.kind.value, nonlinear, shapes=call.shapes())
            self.calls[call.name, nonlinear] = calls
        calls.count += 1
        if self._path() not in calls.layers:
            calls.layers.append(self._path())
        if description := hand_written_rectifier(call, self):
            self.hand_written[f"{description} in {self._path()}"] = None


def needs_rule(call: Call, mode: RuleMode) -> bool:
    """Whether a call is nonlinear in the image, given which of its operands depend on it."""
    is_nonlinear = _NONLINEAR.get(call.kind)
    return True if is_nonlinear is None else is_nonlinear(call, mode)


def _never(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return False


def _several_operands(call: Call, mode: RuleMode) -> bool:
    dependent = sum(mode.depends(operand) for operand in call.operands())
    return dependent > 1 or mode.is_data_dependent(*call.operands())


def _divisor(call: Call, mode: RuleMode) -> bool:
    divisor = call.input if call.name == "rdiv" else call.get("other")
    return mode.depends(divisor) or mode.is_data_dependent(divisor)


def _weight(call: Call, mode: RuleMode) -> bool:
    return mode.depends(call.get("weight"))


def _mask(call: Call, mode: RuleMode) -> bool:
    return mode.is_data_dependent(*call.operands())


def _statistics(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return not is_affine(call)


def _active_dropout(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return bool(call.get("training", True) and call.get("p", 0.5) > 0)


_NONLINEAR: dict[OperationKind, Callable[[Call, RuleMode], bool]] = {
    OperationKind.LINEAR: _never,
    OperationKind.LINEAR_IN_FIRST: _never,
    OperationKind.PRODUCT: _several_operands,
    OperationKind.BILINEAR: _several_operands,
    OperationKind.QUOTIENT: _divisor,
    OperationKind.WEIGHTED: _weight,
    OperationKind.SELECT: _mask,
    OperationKind.NORM: _statistics,
    OperationKind.DROPOUT: _active_dropout,
}
"""Whether a call depends on the image nonlinearly, by kind; calls of other kinds always do."""


@contextmanager
def layer_paths(network: nn.Module) -> Iterator[Callable[[], str]]:
    """Yields a function that returns the path of the layer that is running.

    It uses torch's global module hooks, so no layer is changed; they are removed on leaving.
    """
    names = {id(module): name for name, module in network.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        if id(module) in names:
            running.append(names[id(module)])

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if id(module) in names and running:
            running.pop()

    with ExitStack() as stack:
        add_hook(stack, register_module_forward_pre_hook, enter)
        add_hook(stack, register_module_forward_hook, leave, always_call=True)
        yield lambda: running[-1] if running else ""


def recorded_calls(
    forward: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor
) -> tuple[CallRecorder, Tensor, Tensor]:
    """The calls of one forward.

    Returns:
        The recorder, the input leaf, and the output in its graph.
    """
    leaf = image.detach().clone().requires_grad_()
    with torch.enable_grad(), layer_paths(network) as path, CallRecorder(path) as mode:
        output = forward(leaf)
    return mode, leaf, output
