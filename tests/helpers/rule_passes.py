"""One pass of a network under a rule, as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxplain.engine.rules import Deconvnet, DeepLiftRule, Excitation, Guided, Plain, Rule, guard
from voxplain.targets import Term, WeightField

RULES: dict[str, Rule] = {
    "plain": Plain(),
    "guided": Guided(),
    "deconvnet": Deconvnet(),
    "deep_lift": DeepLiftRule(),
    "excitation": Excitation(),
}

GRADIENTS = {name: rule for name, rule in RULES.items() if not rule.starts_from_output}


@dataclass(frozen=True)
class RulePass:
    gradient: Tensor
    output: Tensor
    scores: Tensor
    start_scores: Tensor | None
    treated: dict[str, int]
    warnings: list[str]

    def residual(self, image: Tensor, baseline: Tensor) -> float:
        """Completeness error of the worst image, relative."""
        assert self.start_scores is not None
        total = ((image - baseline) * self.gradient).flatten(1).sum(1)
        change = self.scores - self.start_scores
        return float(((total - change).abs() / change.abs()).max())


def run_pass(network: nn.Module, image: Tensor, rule: Rule, baseline=None, score=None) -> RulePass:
    """A forward under the rule and its backward."""
    score = score or (lambda output: output.flatten(1).sum(1))
    start = None
    leaf = image.detach().clone().requires_grad_()
    with guard(network):
        if rule.paired:
            with torch.no_grad(), rule.record() as recording:
                start = score(network(torch.zeros_like(image) if baseline is None else baseline))
            mode = rule.replay(recording)
        else:
            mode = rule.mode()
        with mode:
            output = network(leaf)
            scores = score(output.detach() if rule.starts_from_output else output)
        if rule.starts_from_output:
            output_seed = seed(rule, output.detach(), score)
            (gradient,) = torch.autograd.grad(output, leaf, output_seed)
        else:
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return RulePass(
        gradient, output.detach(), scores.detach(), start, dict(mode.treated), mode.warnings
    )


def seed(rule: Rule, output: Tensor, score) -> Tensor:
    """The output seed of a rule for a score that is linear in the output."""
    leaf = output.clone().requires_grad_()
    (weights,) = torch.autograd.grad(score(leaf).sum(), leaf)
    bound = WeightField((Term(weights),), torch.zeros(len(output)), ("",) * len(output))
    return rule.output_seed(rule.seed_field(bound).cotangent(output), output)


def blurred(image: Tensor) -> Tensor:
    """A box blur over 5 voxels per axis, edges repeated; (B, C, *spatial)."""
    for axis in range(2, image.dim()):
        line = image.movedim(axis, -1)
        flat = F.pad(line.reshape(1, -1, line.shape[-1]), (2, 2), mode="replicate")
        image = F.avg_pool1d(flat, 5, 1).reshape(line.shape).movedim(-1, axis)
    return image


class AsNetwork(nn.Module):
    """A function as a network."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def relative(one: Tensor, other: Tensor, scale: Tensor | None = None) -> float:
    """Largest difference relative to the largest value of the scale (by default, of the other)."""
    size = (other if scale is None else scale).abs().max()
    return float((one - other).abs().max() / size)
