"""The rule of layer-wise relevance propagation (LRP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from voxplain.engine.rules.lrp.composites import Composite, CompositeName, composite_of
from voxplain.engine.rules.lrp.dispatch import propagate
from voxplain.engine.rules.lrp.intensity_range import IntensityRange
from voxplain.engine.rules.lrp.layer_rules import EPSILON
from voxplain.engine.rules.lrp.mode import LrpMode
from voxplain.engine.rules.mode import OnUnknown, Rule, ThroughLayer
from voxplain.engine.rules.visibility import unseen_calls


@dataclass(frozen=True)
class Lrp(Rule):
    """Layer-wise relevance propagation: relevance in place of gradients, conserved at every call.

    Relevance starts at the output of the network as R = dS/dF * F. That is W * F for a linear
    link, which sums to S; for other links (a probability) it sums to the first-order part of S.
    The relevance at the image is the map.
    Bach et al., On pixel-wise explanations by layer-wise relevance propagation, 2015; Montavon
    et al., Layer-wise relevance propagation: an overview, 2019. Written from these papers.

    Attributes:
        composite: Layer rules of linear calls: a name or choices.
        epsilon: Stabilizer, relative to the root mean square of the denominators.
        gamma: Of the gamma rule.
        low: Smallest intensity per channel for the box rule; None for that of the image.
        high: Largest one.
        gate: Part of the relevance of a product u * sigmoid(v) that its signal u gets: all of it,
            or half.
        through: A layer, and its channels, through which all relevance has to pass.
        on_unknown: Whether a function without a rule is an error, or is approximated with a
            warning.
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
        """Descriptions of functions that change values and that the mode did not see."""
        return unseen_calls(output, image, _CHANGING)

    def output_seed(self, cotangent: Tensor, output: Tensor) -> Tensor:
        """R = dS/dF * F at the output."""
        return cotangent * output

    def mode(self) -> LrpMode:
        """A context for the image forward."""
        return LrpMode(
            composite_of(self.composite, self.epsilon, self.gamma),
            self.epsilon,
            self.gate,
            IntensityRange(self.low, self.high),
            strict=self.on_unknown == "error",
            propagate=propagate,
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
"""Autograd nodes of torch that only calls which the mode did not see leave in the graph."""
