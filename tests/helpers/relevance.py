"""One backward of relevance through a network, as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxplain.engine.rules import Lrp, guard


@dataclass(frozen=True)
class Propagated:
    relevance: Tensor
    output: Tensor
    entered: float
    bias: float
    epsilon: float
    treated: dict[str, int]
    warnings: list[str]

    @property
    def residual(self) -> float:
        """What is neither on the map nor booked, relative to what entered."""
        arrived = float(self.relevance.double().sum()) + self.bias + self.epsilon
        return abs(arrived - self.entered) / abs(self.entered)


def propagated(network: nn.Module, image: Tensor, rule: Lrp, score=None) -> Propagated:
    """The map of one batch; the sum of the output is explained unless a score is given."""
    score = score or (lambda output: output.flatten(1).sum(1))
    leaf = image.detach().clone().requires_grad_()
    with guard(network), rule.mode() as mode:
        mode.prepare(leaf)
        output = network(leaf)
    end = output.detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(score(end).sum(), end)
    output_seed = rule.output_seed(cotangent, end.detach())
    (found,) = torch.autograd.grad(output, leaf, output_seed)
    return Propagated(
        found,
        output.detach(),
        float(output_seed.double().sum()),
        mode.conservation.bias,
        mode.conservation.epsilon,
        dict(mode.treated),
        mode.warnings,
    )
