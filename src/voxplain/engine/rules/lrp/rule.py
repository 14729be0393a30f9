"""Layer-wise relevance propagation: the score handed back through the network, call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.graph import unseen_calls
from voxplain.engine.rules.lrp.composites import Composite, CompositeName, composite_of
from voxplain.engine.rules.lrp.dispatch import propagate
from voxplain.engine.rules.lrp.intensity_range import OriginalCall, Range
from voxplain.engine.rules.lrp.layer_rules import EPSILON
from voxplain.engine.rules.lrp.mode import ConservationLedger, LrpPropagation
from voxplain.engine.rules.mode import OnUnknown, Rule, ThroughLayer, caller
from voxplain.errors import RuleError


@dataclass(frozen=True)
class Lrp(Rule):
    """Relevance instead of gradients: every call hands on what it got, and nothing is added.

    What the mode's backward carries is relevance. It starts at the output of the network as
    R = dS/dF * F, which is W * F for a linear link and adds up to S there; for other links (a
    probability) the sum is the first-order part of S. It ends at the image as the map itself.
    Bach et al., On pixel-wise explanations by layer-wise relevance propagation, 2015; Montavon
    et al., Layer-wise relevance propagation: an overview, 2019. Written from these papers.

    Attributes:
        composite: Which layer rule a linear call gets: a name or choices.
        epsilon: Stabilizer, relative to the root mean square of the denominators.
        gamma: Of the gamma rule.
        low: Smallest intensity per channel for the box rule; None for that of the image.
        high: Largest one.
        gate: What the signal u of a product u * sigmoid(v) gets: everything, or half.
        through: A layer, and its channels, that relevance has to pass on its way.
        on_unknown: What to do about a function without a rule.
    """

    name: ClassVar[str] = "lrp"
    starts_from_output: ClassVar[bool] = True
    composite: CompositeName | Composite = "epsilon_gamma_box"
    epsilon: float = EPSILON
    gamma: float = 0.25
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    gate: Literal["signal", "half"] = "signal"
    through: ThroughLayer | None = None
    on_unknown: OnUnknown = "error"

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Functions that change values and were called out of sight of the mode, in words."""
        return unseen_calls(output, image, _CHANGING)

    def output_seed(self, cotangent: Tensor, output: Tensor) -> Tensor:
        """R = dS/dF * F at the output."""
        return cotangent * output

    def mode(self) -> LrpMode:
        """A context for the image forward."""
        return LrpMode(self)


class LrpMode(LrpPropagation):
    """Puts relevance in the graph in place of every derivative."""

    def __init__(self, rule: Lrp) -> None:
        super().__init__()
        self.composite = composite_of(rule.composite, rule.epsilon, rule.gamma)
        self.epsilon, self.gate = rule.epsilon, rule.gate
        self.range = Range(rule.low, rule.high)
        self.balance = ConservationLedger()
        self.strict = rule.on_unknown == "error"

    def look(self, images: Tensor) -> None:
        """Takes the range of intensities from whole images."""
        self.range.look(images)

    def shares(self) -> dict[str, float]:
        """What biases took, and what stabilizers took."""
        return {"bias": self.balance.bias, "epsilon": self.balance.epsilon}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Keeps the call as it was made, for those that move the image about."""
        self._asked = OriginalCall(func, args, kwargs or {})
        return super().__torch_function__(func, types, args, kwargs)

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with the redistribution of relevance as its backward."""
        if not self.depends(*call.operands()):
            return native()
        asked = self._asked
        for operand in call.operands():
            if operand.is_leaf and self.depends(operand):
                self.range.start(operand)
        result = propagate(self, call, native)
        if result is NotImplemented:
            result = native()
        else:
            self.treated[call.name] += 1
        self.carry(call, asked, result)
        return result

    def unknown(self, what: str) -> None:
        """Refuses, or remarks on, a function through which relevance is not defined."""
        if self.strict:
            raise RuleError(self.refusal(what))
        remark = f"LRP has no rule for {what}; relevance passed it approximately"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def refusal(self, what: str) -> str:
        """The sentence for a function without a rule."""
        return (
            f"LRP has no rule for {what}, called in {caller()}; "
            "on_unknown: warn goes on with an approximation"
        )

    def finish(self) -> None:
        """Says when a rule for layers that read the image found none."""
        wanted = [choice.rule for choice in self.composite if choice.first]
        if wanted and self.weighted and not self.reading:
            self.warnings.append(
                f"no weighted layer reads the image itself, so the {wanted[0]} rule was not used"
            )


_CHANGING = (
    *("Convolution", "Addmm", "Mm", "Bmm", "Mul", "Div", "Add", "Sub", "Neg", "Mean", "Sum"),
    *("AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "UpsampleLinear1D"),
    *("UpsampleBilinear2D", "UpsampleTrilinear3D", "NativeBatchNorm", "NativeLayerNorm"),
    *("NativeGroupNorm", "Relu", "LeakyRelu", "Prelu", "PreluKernel", "Elu", "Celu", "Selu"),
    *("Threshold", "Hardswish", "Softplus", "Gelu", "Silu", "Mish", "Sigmoid", "Tanh", "Clamp"),
    *("Hardsigmoid", "Hardtanh", "LogSigmoid", "Exp", "Log", "Sqrt", "Pow", "Softmax"),
    *("LogSoftmax", "Logsumexp", "Maximum", "Minimum", "Rsqrt", "Reciprocal", "Abs"),
)
"""Nodes of torch's own that are left where a mode did not see the call."""
