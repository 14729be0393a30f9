"""Excitation backprop: winning probabilities handed from the output down to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.excitation.dispatch import EvidenceMode, shared_out
from voxplain.engine.rules.graph import RECTIFIER_NODES, unseen_calls
from voxplain.engine.rules.lrp.layer_rules import accumulator
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, ThroughLayer, caller
from voxplain.engine.rules.redistribution import redistributed
from voxplain.engine.rules.substitutes import grafted_all, written
from voxplain.engine.tensors import map_tensors
from voxplain.errors import RuleError, TargetError
from voxplain.targets import Term, WeightField

_NODES = (
    *RECTIFIER_NODES,
    *("Convolution", "Addmm", "Mm", "Bmm", "Mul", "Sigmoid", "Tanh", "Softmax", "LogSoftmax"),
    *("NativeLayerNorm", "NativeGroupNorm", "NativeBatchNorm", "FusedRmsNorm", "Mean", "Sum"),
)


@dataclass(frozen=True)
class Excitation(Rule):
    """Marginal winning probabilities: "gradients" under this rule are shares of a mass of 1.

    The mass enters at the output as W+ / sum W+, whatever the link. Every unit hands what it has
    to the units that raise it, in proportion to ``max(0, w) * max(0, x)``; biases get nothing,
    and a unit that nothing raises loses its share. Rectifiers, norms and squashing functions hand
    on what they get; a maximum gives all to its winner, a gated product all to its signal, an
    attention all to its values. Published for convolutions, linear layers, ReLU, pooling and
    batch norm; instance, group and layer norm, transposed convolutions, concatenation, gates and
    attention are extensions. Inputs may be negative here (after LeakyReLU or a norm), hence
    ``max(0, x)``. Zhang et al., Top-down neural attention by excitation backprop, 2016.

    Attributes:
        against: Ask about -S: the last weights on the way are negated.
        through: A layer; what does not pass through its output is left out.
        on_unknown: What to do about a function without a rule that evidence arrives at.
    """

    name: ClassVar[str] = "excitation"
    starts_from_output: ClassVar[bool] = True
    against: bool = False
    through: ThroughLayer | None = None
    on_unknown: OnUnknown = "error"

    def field(self, bound: WeightField) -> WeightField:
        """The weights without their link, over the sum of their magnitudes.

        Weights that are negative throughout (class 0 of a one-channel output) ask about -S.

        Raises:
            TargetError: For weights of both signs in one image.
        """
        weights = sum((term.weights for term in bound.terms[1:]), bound.terms[0].weights)
        flat = weights.flatten(1)
        if bool(((flat > 0).any(1) & (flat < 0).any(1)).any()):
            raise TargetError(
                "excitation backprop starts from weights of one sign, and this target contrasts "
                "two scores; explain one of them with contrastive_excitation_backprop"
            )
        wide = flat.to(accumulator(flat))
        shares = wide / wide.abs().sum(1, keepdim=True).clamp(min=1e-30)
        seed = (-shares if self.against else shares).to(weights).reshape(weights.shape)
        return replace(bound, terms=(Term(seed),), offset=torch.zeros_like(bound.offset))

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Functions that were called out of sight of the mode, in words."""
        return unseen_calls(output, image, _NODES)

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _ExcitationMode(self.on_unknown, self.against)


class _ExcitationMode(EvidenceMode):
    """Puts the shares of every call in the graph."""

    def __init__(self, on_unknown: OnUnknown, against: bool) -> None:
        super().__init__()
        self._on_unknown, self._against = on_unknown, against

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with its shares as the backward."""
        if not self.depends(*call.operands()):
            return native()
        if call.family is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its gates, so excitation backprop cannot treat "
                "it; use the rule 'plain'"
            )
        result = self._result(call, native)
        self.gates.note(call, result, self)
        return result

    def unknown(self, what: str) -> None:
        """Refuses, or remarks on, a function that would get the plain gradient."""
        if self._on_unknown == "error":
            raise RuleError(_sentence(what))
        remark = f"excitation backprop has no rule for {what}; it got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def shares(self) -> dict[str, float]:
        """What ended at units that nothing raises."""
        return {"unraised_against" if self._against else "unraised": self.lost.amount}

    def _result(self, call: Call, native: Callable[[], Any]) -> Any:
        steps = None if call.name in ("maximum", "minimum") else decomposition(call)
        if steps is not None:
            return self._composite(call, steps, native)
        found = shared_out(self, call, native)
        if isinstance(found, str):
            return self._untreated(call, found, native)
        if found is NotImplemented:
            return native()
        self.treated[call.name] += 1
        return written(call, found)

    def _composite(self, call: Call, steps: Callable[[], Any], native: Callable[[], Any]) -> Any:
        with self:
            stand_in = steps()
        if stand_in is NotImplemented:
            return self._untreated(call, call.name, native)
        if call.inplace or call.out is not None:
            return written(call, stand_in)
        with torch.no_grad():
            value = native()
        return grafted_all(stand_in, value)

    def _untreated(self, call: Call, what: str, native: Callable[[], Any]) -> Any:
        """An error as soon as evidence arrives; what only makes gates or weights is let through."""
        if self._on_unknown == "warn" or call.inplace or call.out is not None:
            self.unknown(what)
            return native()
        message = _sentence(what)

        def refuse(q: Tensor) -> tuple[Tensor]:  # noqa: ARG001
            raise RuleError(message)

        def guarded(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            return redistributed(tensor.detach(), (tensor,), refuse)

        return map_tensors(native(), guarded)


def _sentence(what: str) -> str:
    return (
        f"excitation backprop has no rule for {what}, called in {caller()}; "
        "on_unknown: warn gives it the plain gradient"
    )
