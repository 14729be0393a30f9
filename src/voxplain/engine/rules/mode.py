"""Base classes of backward rules and of the function modes that apply them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.functions import describe, is_shape_only
from voxplain.engine.rules.substitutes import custom_function_name
from voxplain.engine.tensors import TensorMarks, is_floating, tensors_in
from voxplain.errors import RuleError
from voxplain.targets import WeightField

OnUnknown = Literal["error", "warn"]


@dataclass(frozen=True)
class ThroughLayer:
    """A layer, and some of its channels, through which all relevance has to pass.

    Attributes:
        path: Of the layer, as in taps.
        channels: Channels that pass relevance; None for all.
    """

    path: str
    channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rule:
    """A replacement of differentiation; equal rules share one stream.

    Attributes:
        name: Name in configurations and sidecars.
        paired: Whether the rule compares the image with a reference.
        is_plain: Whether the rule is ordinary differentiation.
        exact_in_windows: Whether the gradients of windows add up to that of the whole volume.
        starts_from_output: Whether the backward starts from ``output_seed`` at the output F instead
            of from dS/dF; the rule then does not see the link function.
    """

    name: ClassVar[str]
    paired: ClassVar[bool] = False
    is_plain: ClassVar[bool] = False
    exact_in_windows: ClassVar[bool] = False
    starts_from_output: ClassVar[bool] = False

    @property
    def through(self) -> ThroughLayer | None:
        """The layer through which all relevance has to pass, if any."""
        return None

    @property
    def on_unknown(self) -> OnUnknown:
        """Whether a call that the rule did not see is an error or a warning."""
        return "error"

    def seed_field(self, bound: WeightField) -> WeightField:
        """The weight field from whose derivative ``output_seed`` is made."""
        return bound

    def output_seed(self, cotangent: Tensor, output: Tensor) -> Tensor:
        """The tensor from which the backward starts at the output.

        Args:
            cotangent: Derivative of ``seed_field`` at the whole output, ``(k, K, *spatial)``; for
                windows its crops, multiplied by their blending weights.
            output: Output of the network, detached.
        """
        return cotangent

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Descriptions of calls that the rule should have replaced but that its mode did not see.

        Such calls are made by scripted functions or in other threads.

        Args:
            output: Of a forward under the rule, in its graph.
            image: The input leaf.
        """
        return []

    def mode(self) -> RuleMode:
        """A context for one forward pass of an unpaired rule."""
        raise RuleError(f"the rule {self.name!r} compares two runs; use record() and replay()")

    def record(self) -> RuleMode:
        """A context for the reference forward of a paired rule, gradients disabled."""
        raise RuleError(f"the rule {self.name!r} has no reference run; use mode()")

    def replay(self, recording: RuleMode) -> RuleMode:
        """A context for the image forward of a paired rule, gradients enabled."""
        raise RuleError(f"the rule {self.name!r} has no reference run; use mode()")


class RuleMode(TorchFunctionMode):
    """Function mode that runs every call unchanged; subclasses replace the backward of calls.

    Attributes:
        treated: Number of calls with a replaced backward, by function name.
        warnings: Remarks for readers of the result.
        functions: The function and the line of the network that made each node of the graph, where
            someone asks for them by putting a dictionary here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.treated: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.functions: dict[Node, str] | None = None
        self._depth = 0
        self._parameters = TensorMarks()
        self._weights = TensorMarks()
        self._data_dependent = TensorMarks()

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Result of a call of a known function; torch's own unless overridden.

        Args:
            call: The call with named arguments.
            native: Runs the function exactly as it was called.
        """
        return native()

    def report_unknown(self, function: str) -> None:
        """Called for a function of the image that is not in the table of functions."""

    def prepare(self, images: Tensor) -> None:
        """Called before the forward with the whole images, also if the network sees windows.

        Args:
            images: ``(k, C, *spatial)`` in model space.
        """

    def residuals(self) -> dict[str, float]:
        """After a backward: relevance that did not reach the image, by cause; else empty."""
        return {}

    def finish(self) -> None:
        """Called when the outermost context closes without an error."""

    def depends(self, *operands: Any) -> bool:
        """Whether a gradient towards the image flows through any of these."""
        if not torch.is_grad_enabled():
            return False
        return any(
            tensor.requires_grad
            and not self.from_parameters(tensor)
            and tensor not in self._weights
            for tensor in tensors_in(operands)
        )

    def from_parameters(self, tensor: Tensor) -> bool:
        """Whether the tensor is a parameter or comes from parameters alone, gradients or not."""
        return isinstance(tensor, nn.Parameter) or tensor in self._parameters

    def is_data_dependent(self, *operands: Any) -> bool:
        """Whether any of these was computed from the image without a gradient, as ``x > 0`` is."""
        return any(tensor in self._data_dependent for tensor in tensors_in(operands))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs calls without tensors directly and passes known functions to ``treat``."""
        keywords = kwargs or {}
        operands = [*tensors_in(args), *tensors_in(keywords)]
        if not operands:
            return func(*args, **keywords)
        depends = self.depends(*operands)
        if depends:
            self._report_custom_functions(operands)
        call = describe(func, args, keywords)
        if call is None:
            result = func(*args, **keywords)
            if depends and self.depends(result):
                self.report_unknown(_qualified_name(func))
        else:
            result = self.treat(call, lambda: func(*args, **keywords))
            if self.functions is not None and depends:
                self._keep_function(result, f"{call.name} in {caller()}")
        self._mark(func, operands, result, depends)
        return result

    def __enter__(self: Mode) -> Mode:
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0 and kind is None:
            self.finish()

    def _keep_function(self, result: Any, function: str) -> None:
        for tensor in tensors_in(result):
            if self.functions is not None and tensor.grad_fn is not None:
                self.functions.setdefault(tensor.grad_fn, function)

    def _report_custom_functions(self, operands: list[Tensor]) -> None:
        for operand in operands:
            if name := custom_function_name(operand.grad_fn):
                self.report_unknown(f"the custom autograd function {name}")

    def _mark(
        self, func: Callable[..., Any], operands: list[Tensor], result: Any, depends: bool
    ) -> None:
        """Marks results of parameters alone, and results of the image without a gradient."""
        floating = [operand for operand in operands if is_floating(operand)]
        if floating and all(self.from_parameters(operand) for operand in floating):
            self._mark_all(self._parameters, result)
        elif not depends and torch.is_grad_enabled():
            self._mark_all(self._weights, result)
        if (depends or self.is_data_dependent(*operands)) and not is_shape_only(func):
            self._mark_all(self._data_dependent, result)

    def _mark_all(self, marks: TensorMarks, result: Any) -> None:
        for tensor in tensors_in(result):
            matches = marks is self._parameters or tensor.requires_grad == (marks is self._weights)
            if matches and not isinstance(tensor, nn.Parameter):
                marks.add(tensor)


Mode = TypeVar("Mode", bound="RuleMode")


class _NoMode(RuleMode):
    """A mode that is never pushed, as plain autograd needs none."""

    def __enter__(self) -> _NoMode:
        return self

    def __exit__(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Plain(Rule):
    """Autograd without any replacement."""

    name: ClassVar[str] = "plain"
    is_plain: ClassVar[bool] = True
    exact_in_windows: ClassVar[bool] = True

    def mode(self) -> RuleMode:
        """A context without effect."""
        return _NoMode()


def is_rectifier(call: Call) -> bool:
    """Whether a call is a rectifier: one by name, or a clamp whose lower bound is 0."""
    if call.kind is OperationKind.RECTIFIER:
        return True
    if call.name == "hardtanh":
        return bool(call.get("min_val", -1.0) == 0)
    lower = call.get("min") if call.name in ("clamp", "clamp_min") else None
    return isinstance(lower, (int, float)) and lower == 0


def caller() -> str:
    """The line of the network that made the current call, for error messages."""
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("torch.", "voxplain.engine.rules")) and module != "torch":
            owner = frame.f_locals.get("self")
            where = f"{module}, line {frame.f_lineno}"
            return f"{type(owner).__name__} ({where})" if isinstance(owner, nn.Module) else where
        frame = frame.f_back  # type: ignore[assignment]
    return "the network"


def _qualified_name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", func))
    module = getattr(func, "__module__", None) or "torch.Tensor"
    return f"{module}.{name}"
