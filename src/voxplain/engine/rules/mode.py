"""What every backward rule shares: a mode that sees each torch function as it is called."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.functions import describe
from voxplain.engine.rules.substitutes import foreign_function
from voxplain.engine.tensors import TensorMarks, is_floating, tensors_in
from voxplain.errors import RuleError
from voxplain.targets import WeightField

OnUnknown = Literal["error", "warn"]


@dataclass(frozen=True)
class ThroughLayer:
    """A layer whose output everything has to pass on its way to the image.

    Attributes:
        path: Of the layer, as taps name it.
        channels: Channels to pass; None for all.
    """

    path: str
    channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rule:
    """How differentiation is replaced; equal rules are one stream.

    Attributes:
        name: As configurations and sidecars name it.
        paired: Whether the rule compares the image with a reference run.
        is_plain: Whether it replaces nothing.
        exact_in_windows: Whether gradients of windows add up to that of the whole volume.
        starts_from_output: Whether something else than dS/dF enters at the output F. What the
            link does is then outside of the rule, and ``field`` and ``output_seed`` say what
            enters.
    """

    name: ClassVar[str]
    paired: ClassVar[bool] = False
    is_plain: ClassVar[bool] = False
    exact_in_windows: ClassVar[bool] = False
    starts_from_output: ClassVar[bool] = False

    @property
    def through(self) -> ThroughLayer | None:
        """Where the rule follows only what passes through a layer."""
        return None

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do about a function that the rule should have replaced and never saw."""
        return "error"

    def field(self, bound: WeightField) -> WeightField:
        """The weight field whose derivative enters at the output of a seeded rule."""
        return bound

    def output_seed(self, cotangent: Tensor, output: Tensor) -> Tensor:
        """What enters at an output; for windows at the output of each.

        Args:
            cotangent: Derivative of ``field`` at the whole output, ``(k, K, *spatial)``; for
                windows their parts of it, times their blending weights.
            output: What the network gave there, outside the graph.
        """
        return cotangent

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Calls that the rule should have replaced and never saw, in words.

        They were made out of sight of the mode: by a scripted function or in another thread.

        Args:
            output: Of a forward under the rule, in its graph.
            image: The leaf that went in.
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
    """Passes every call through; subclasses put their own functions in the graph.

    Attributes:
        treated: Function name to the number of calls that got a rule.
        warnings: What the reader of a result should know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.treated: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._depth = 0
        self._parameters = TensorMarks()
        self._weights = TensorMarks()
        self._decisions = TensorMarks()

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The result of a call of a known function; by default what torch gives.

        Args:
            call: The call with named arguments.
            native: Runs the function exactly as it was called.
        """
        return native()

    def unknown(self, what: str) -> None:
        """Called when a function that depends on the image is in no family."""

    def look(self, images: Tensor) -> None:
        """Called before the forward with the images, whole even where windows of them are seen.

        Args:
            images: ``(k, C, *spatial)`` in model space.
        """

    def shares(self) -> dict[str, float]:
        """After a backward: what stayed on the way, by name, where the rule conserves a sum."""
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
        """Whether the tensor is a parameter or was computed from parameters alone.

        The answer is the same with and without gradients; ``depends`` knows in addition what was
        computed from parameters and constants.
        """
        return isinstance(tensor, nn.Parameter) or tensor in self._parameters

    def decided_by_data(self, *operands: Any) -> bool:
        """Whether any of these was computed from the image without a gradient, as ``x > 0`` is."""
        return any(tensor in self._decisions for tensor in tensors_in(operands))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Routes one call: getters and constants straight through, the rest to ``treat``."""
        named = kwargs or {}
        operands = [*tensors_in(args), *tensors_in(named)]
        if not operands:
            return func(*args, **named)
        depends = self.depends(*operands)
        if depends:
            self._refuse_foreign(operands)
        call = describe(func, args, named)
        if call is None:
            result = func(*args, **named)
            if depends and self.depends(result):
                self.unknown(_qualified(func))
        else:
            result = self.treat(call, lambda: func(*args, **named))
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

    def _refuse_foreign(self, operands: list[Tensor]) -> None:
        for operand in operands:
            if name := foreign_function(operand.grad_fn):
                self.unknown(f"the custom autograd function {name}")

    def _mark(
        self, func: Callable[..., Any], operands: list[Tensor], result: Any, depends: bool
    ) -> None:
        """Remembers what comes from parameters alone and what was decided by the image."""
        floating = [operand for operand in operands if is_floating(operand)]
        if floating and all(self.from_parameters(operand) for operand in floating):
            self._mark_all(self._parameters, result)
        elif not depends and torch.is_grad_enabled():
            self._mark_all(self._weights, result)
        if (depends or self.decided_by_data(*operands)) and not _is_shape_only(func):
            self._mark_all(self._decisions, result)

    def _mark_all(self, marks: TensorMarks, result: Any) -> None:
        for tensor in tensors_in(result):
            wanted = marks is self._parameters or tensor.requires_grad == (marks is self._weights)
            if wanted and not isinstance(tensor, nn.Parameter):
                marks.add(tensor)


Mode = TypeVar("Mode", bound="RuleMode")


class _Nothing(RuleMode):
    """A mode that is never pushed: plain autograd needs none."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Plain(Rule):
    """Autograd as it is."""

    name: ClassVar[str] = "plain"
    is_plain: ClassVar[bool] = True
    exact_in_windows: ClassVar[bool] = True

    def mode(self) -> RuleMode:
        """A context that does nothing."""
        return _Nothing()


_SHAPE_ONLY = (
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
)


def _is_shape_only(func: Callable[..., Any]) -> bool:
    """Whether a function takes nothing but shape and type from its operand."""
    return getattr(func, "__name__", "") in _SHAPE_ONLY


def is_rectifier(call: Call) -> bool:
    """Whether a call is a rectifier: one by name, or a clamp whose lower bound is 0."""
    if call.family is OperationKind.RECTIFIER:
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


def _qualified(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", func))
    module = getattr(func, "__module__", None) or "torch.Tensor"
    return f"{module}.{name}"
