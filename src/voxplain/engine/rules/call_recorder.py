"""A mode that changes nothing and writes down every call that depends on the image."""

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
from voxplain.engine.rules.rectifiers import rectifier_in_disguise
from voxplain.models.hooks import add_hook


@dataclass
class RecordedCalls:
    """All calls of one function.

    Attributes:
        function: Canonical name.
        family: As in the table of rules.
        nonlinear: Whether it was called in a way that needs a rule.
        count: Calls that depend on the image.
        layers: Paths of the modules that made them, in order.
        shapes: Operand shapes of the first call.
    """

    function: str
    family: str
    nonlinear: bool
    count: int = 0
    layers: list[str] = field(default_factory=list)
    shapes: tuple[tuple[int, ...], ...] = ()


class CallRecorder(RuleMode):
    """Counts calls by function, with the path of the layer that made them.

    Args:
        path: Tells the path of the layer that is running.
    """

    def __init__(self, path: Callable[[], str]) -> None:
        super().__init__()
        self.seen: dict[tuple[str, bool], RecordedCalls] = {}
        self.unknowns: dict[str, None] = {}
        self.disguised: dict[str, None] = {}
        self._path = path

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Writes the call down and lets torch compute it."""
        if self.depends(*call.operands()):
            self._note(call)
        return native()

    def unknown(self, what: str) -> None:
        """Writes down a function that is in no family."""
        self.unknowns[f"{what} in {self._path()}"] = None

    def _note(self, call: Call) -> None:
        nonlinear = needs_rule(call, self)
        row = self.seen.get((call.name, nonlinear))
        if row is None:
            row = RecordedCalls(call.name, call.family.value, nonlinear, shapes=call.shapes())
            self.seen[call.name, nonlinear] = row
        row.count += 1
        if self._path() not in row.layers:
            row.layers.append(self._path())
        if disguise := rectifier_in_disguise(call, self):
            self.disguised[f"{disguise} in {self._path()}"] = None


def needs_rule(call: Call, mode: RuleMode) -> bool:
    """Whether a call is nonlinear in the image, given which of its operands depend on it."""
    decide = _DECISIONS.get(call.family)
    return True if decide is None else decide(call, mode)


def _never(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return False


def _several(call: Call, mode: RuleMode) -> bool:
    moving = sum(mode.depends(operand) for operand in call.operands())
    return moving > 1 or mode.decided_by_data(*call.operands())


def _divisor(call: Call, mode: RuleMode) -> bool:
    divisor = call.input if call.name == "rdiv" else call.get("other")
    return mode.depends(divisor) or mode.decided_by_data(divisor)


def _weight(call: Call, mode: RuleMode) -> bool:
    return mode.depends(call.get("weight"))


def _mask(call: Call, mode: RuleMode) -> bool:
    return mode.decided_by_data(*call.operands())


def _statistics(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return not is_affine(call)


def _active(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return bool(call.get("training", True) and call.get("p", 0.5) > 0)


_DECISIONS: dict[OperationKind, Callable[[Call, RuleMode], bool]] = {
    OperationKind.LINEAR: _never,
    OperationKind.LINEAR_IN_FIRST: _never,
    OperationKind.PRODUCT: _several,
    OperationKind.BILINEAR: _several,
    OperationKind.QUOTIENT: _divisor,
    OperationKind.WEIGHTED: _weight,
    OperationKind.SELECT: _mask,
    OperationKind.NORM: _statistics,
    OperationKind.DROPOUT: _active,
}


@contextmanager
def layer_paths(network: nn.Module) -> Iterator[Callable[[], str]]:
    """Yields a function that tells which layer is running, without touching any layer.

    The hooks are torch's own for all modules; they are removed on leaving.
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
    """One forward under the listing mode.

    Returns:
        The mode, the leaf that went in, and the output in its graph.
    """
    leaf = image.detach().clone().requires_grad_()
    with torch.enable_grad(), layer_paths(network) as path, CallRecorder(path) as mode:
        output = forward(leaf)
    return mode, leaf, output
