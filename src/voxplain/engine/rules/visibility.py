"""Whether a rule sees every torch call of a network: before, during and after a forward."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from voxplain.engine.rules.substitutes import custom_function_name
from voxplain.errors import RuleError
from voxplain.models.programs import Program

RECTIFIER_NODES = (
    *("Relu", "LeakyRelu", "Prelu", "PreluKernel", "Elu", "Celu", "Selu", "Threshold", "Rrelu"),
    *("RreluWithNoise", "Hardswish", "Softplus", "Gelu", "Silu", "Mish"),
)
NONLINEAR_NODES = (
    *RECTIFIER_NODES,
    *("Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Clamp", "LogSigmoid", "Exp", "Log", "Sqrt"),
    *("Softmax", "LogSoftmax", "Logsumexp", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm"),
    *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
    *("Amax", "Maximum", "Max", "Pow", "Rsqrt", "Reciprocal"),
)


@dataclass
class GuardRecord:
    """What a guard switched off during its block.

    Attributes:
        checkpointed: Number of segments that ran without their activation checkpoint.
    """

    checkpointed: int = 0


@contextmanager
def guard(network: nn.Module) -> Iterator[GuardRecord]:
    """Makes every torch call of a network visible to a rule inside the block.

    Activation checkpoints are skipped (their segment runs directly, which costs memory and changes
    no value), and compiled parts run eagerly.

    Args:
        network: The network under study; it is not changed.

    Yields:
        A record of what was switched off.

    Raises:
        RuleError: For TorchScript parts and ``nn.DataParallel``, with their path.
    """
    for path, reason in invisible_parts(network):
        raise RuleError(f"backward rules cannot see into {path}: {reason}")
    record = GuardRecord()
    with _without_checkpoints(record), _without_compilation():
        yield record


def invisible_parts(network: nn.Module) -> list[tuple[str, str]]:
    """Paths of the parts that no rule can see into, each with the reason and a remedy."""
    parts = []
    for name, module in network.named_modules():
        path = name or type(network).__name__
        if isinstance(module, nn.DataParallel):
            advice = "its replicas run in other threads; pass the wrapped module instead"
            parts.append((path, f"nn.DataParallel, {advice}"))
        elif isinstance(module, Program):
            parts.append((path, f"{module.kind}; use the original Python module"))
        elif isinstance(module, torch.jit.ScriptModule):
            parts.append((path, "TorchScript; use the original Python module"))
        else:
            parts += _scripted_attributes(path, module)
    return parts


def _scripted_attributes(path: str, module: nn.Module) -> list[tuple[str, str]]:
    return [
        (f"{path}.{key}", "a scripted or traced function; use the original Python function")
        for key, value in vars(module).items()
        if isinstance(value, torch.jit.ScriptFunction)
    ]


def unseen_calls(output: Tensor, image: Tensor, kinds: tuple[str, ...]) -> list[str]:
    """Descriptions of autograd nodes that a rule should have replaced, and of custom functions.

    Under a rule every call of these kinds has one of voxplain's autograd functions as its node. A
    node of torch itself was made where the mode does not see it: by TorchScript, in another thread,
    or in a recomputed segment.

    Args:
        output: Of a forward under the rule.
        image: The input leaf.
        kinds: ``RECTIFIER_NODES`` or ``NONLINEAR_NODES``.
    """
    descriptions = []
    for node in nodes_between(output, image):
        name = type(node).__name__.split("Backward")[0]
        if custom := custom_function_name(node):
            descriptions.append(f"custom autograd function {custom}")
        elif name in kinds:
            descriptions.append(f"{name} made out of sight of the rule")
    return descriptions


def nodes_between(output: Tensor, image: Tensor) -> list[Node]:
    """Every node of the autograd graph on a path from the output to a leaf.

    Args:
        output: Of the network.
        image: The leaf; nodes that lead to parameters alone are left out.
    """
    if output.grad_fn is None:
        return []
    leaf = get_gradient_edge(image).node
    leads_to_leaf: dict[Node, bool] = {leaf: True}
    stack: list[tuple[Node, bool]] = [(output.grad_fn, False)]
    while stack:
        node, expanded = stack.pop()
        following = [after for after, _ in node.next_functions if after is not None]
        if expanded:
            leads_to_leaf[node] = any(leads_to_leaf[after] for after in following)
        elif node not in leads_to_leaf:
            leads_to_leaf[node] = False
            stack.append((node, True))
            stack.extend((after, False) for after in following if after not in leads_to_leaf)
    return [node for node, leads in leads_to_leaf.items() if leads and node is not leaf]


class _ProcessWide:
    """A change of the process that is made by the first of several blocks and undone by the last.

    Args:
        change: Returns a context manager that makes and undoes it.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._blocks = 0
        self._made = ExitStack()

    @contextmanager
    def block(self) -> Iterator[None]:
        """The change holds inside the block, in all threads."""
        with self._lock:
            if not self._blocks:
                self._made.enter_context(self._change())
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._made.close()


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Runs code of ``torch.compile`` eagerly; without effect if nothing was ever compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        raise RuleError("backward rules need torch 2.6 or later for compiled networks")
    with _EAGER.block():
        yield


_EAGER = _ProcessWide(lambda: torch.compiler.set_stance("force_eager"))


class _Guards(threading.local):
    """The records of the guards around the code of the current thread, the innermost last."""

    def __init__(self) -> None:
        self.records: list[GuardRecord] = []


_GUARDS = _Guards()


@contextmanager
def _without_checkpoints(record: GuardRecord) -> Iterator[None]:
    """Runs the segments of both kinds of ``torch.utils.checkpoint`` directly in this thread."""
    _GUARDS.records.append(record)
    try:
        with _DIRECT.block():
            yield
    finally:
        _GUARDS.records.pop()


@contextmanager
def _checkpoints_replaced() -> Iterator[None]:
    """Replaces checkpoints by ones that run directly in guarded threads, and as usual in others.

    The names are looked up by ``checkpoint()`` at each call, however it was imported.
    """
    originals = {name: getattr(checkpointing, name) for name in _SUBSTITUTES}
    for name, substitute in _SUBSTITUTES.items():
        setattr(checkpointing, name, substitute(originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(checkpointing, name, original)


_DIRECT = _ProcessWide(_checkpoints_replaced)


class _Reentrant:
    """Replaces the reentrant checkpoint function."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def apply(self, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        if not _GUARDS.records:
            return self._original.apply(function, preserve, *args)
        _GUARDS.records[-1].checkpointed += 1
        return function(*args)


def _without_reentry(original: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    """Replaces the generator around the segment of a checkpoint that is not reentrant."""

    def around_segment(*args: Any, **kwargs: Any) -> Iterator[None]:
        if not _GUARDS.records:
            return original(*args, **kwargs)
        _GUARDS.records[-1].checkpointed += 1
        return _empty_block()

    return around_segment


def _empty_block() -> Iterator[None]:
    yield


_SUBSTITUTES: dict[str, Callable[[Any], Any]] = {
    "CheckpointFunction": _Reentrant,
    "_checkpoint_without_reentrant_generator": _without_reentry,
}
