"""What the autograd graph says about calls that a mode never saw."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from voxplain.engine.rules.substitutes import custom_function_name

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


def nodes_between(output: Tensor, image: Tensor) -> list[Node]:
    """Every node of the graph on some path from the output to a leaf.

    Args:
        output: What the network returned.
        image: The leaf that requires a gradient; nodes that lead to parameters alone are left out.
    """
    if output.grad_fn is None:
        return []
    goal = get_gradient_edge(image).node
    leads: dict[Node, bool] = {goal: True}
    stack: list[tuple[Node, bool]] = [(output.grad_fn, False)]
    while stack:
        node, expanded = stack.pop()
        following = [after for after, _ in node.next_functions if after is not None]
        if expanded:
            leads[node] = any(leads[after] for after in following)
        elif node not in leads:
            leads[node] = False
            stack.append((node, True))
            stack.extend((after, False) for after in following if after not in leads)
    return [node for node, found in leads.items() if found and node is not goal]


def unseen_calls(output: Tensor, image: Tensor, kinds: tuple[str, ...]) -> list[str]:
    """Names of nodes that a rule should have replaced and did not, and of custom functions.

    Under a rule every call of these kinds has voxplain's own function in its place; one that is
    left was made out of sight: by TorchScript, in another thread, in a recomputed segment.

    Args:
        output: Of a forward under the rule.
        image: The leaf.
        kinds: ``RECTIFIER_NODES`` or ``NONLINEAR_NODES``.
    """
    found = []
    for node in nodes_between(output, image):
        name = type(node).__name__.split("Backward")[0]
        if foreign := custom_function_name(node):
            found.append(f"custom autograd function {foreign}")
        elif name in kinds:
            found.append(f"{name} made out of sight of the rule")
    return found
