"""One backward of relevance through a network, as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxplain.engine.rules import Lrp, guard


@dataclass(frozen=True)
class LrpResult:
    relevance: Tensor
    output: Tensor
    output_relevance: float
    bias: float
    epsilon: float
    treated: dict[str, int]
    warnings: list[str]

    @property
    def residual(self) -> float:
        """Relevance that is neither at the image nor absorbed, relative to that at the output."""
        total = float(self.relevance.double().sum()) + self.bias + self.epsilon
        return abs(total - self.output_relevance) / abs(self.output_relevance)


def run_lrp(network: nn.Module, image: Tensor, rule: Lrp, score=None) -> LrpResult:
    """LRP of one batch, for a score; by default the sum of the output."""
    score = score or (lambda output: output.flatten(1).sum(1))
    leaf = image.detach().clone().requires_grad_()
    with guard(network), rule.mode() as mode:
        mode.prepare(leaf)
        output = network(leaf)
    end = output.detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(score(end).sum(), end)
    output_seed = rule.output_seed(cotangent, end.detach())
    (relevance,) = torch.autograd.grad(output, leaf, output_seed)
    return LrpResult(
        relevance,
        output.detach(),
        float(output_seed.double().sum()),
        mode.conservation.bias,
        mode.conservation.epsilon,
        dict(mode.treated),
        mode.warnings,
    )
