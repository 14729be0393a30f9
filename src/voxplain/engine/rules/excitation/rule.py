"""The rule of excitation backprop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.constants import CONCATENATING, FILLING, run_booking_constants
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.excitation.dispatch import ExcitationMode, redistribute
from voxplain.engine.rules.lrp.layer_rules import accumulator
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, ThroughLayer, caller
from voxplain.engine.rules.redistribution import with_redistribution
from voxplain.engine.rules.substitutes import with_surrogate_gradients, write_result
from voxplain.engine.rules.visibility import RECTIFIER_NODES, unseen_calls
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
    """Excitation backprop: marginal winning probabilities in place of gradients.

    The backward starts at the output with W / sum abs(W), a mass of 1, whatever the link. Every
    unit redistributes its probability to the units that raise it, in proportion to
    ``max(0, w) * max(0, x)``. Biases get nothing, and the probability of a unit that no input
    raises is lost. Rectifiers, norms and squashing functions pass it unchanged; a maximum gives all
    to its winner, a gated product all to its signal, an attention all to its values. Published for
    convolutions, linear layers, ReLU, pooling and batch norm; instance, group and layer norm,
    transposed convolutions, concatenation, gates and attention are extensions. Inputs may be
    negative here (after LeakyReLU or a norm), hence ``max(0, x)``. Zhang et al., Top-down neural
    attention by excitation backprop, 2016.

    Attributes:
        against: Whether to explain -S: the last weights on the way are negated.
        through: A layer through whose output all probability has to pass.
        on_unknown: Whether a function without a rule that probability reaches is an error, or gets
            the plain gradient with a warning.
    """

    name: ClassVar[str] = "excitation"
    starts_from_output: ClassVar[bool] = True
    against: bool = False
    through: ThroughLayer | None = None
    on_unknown: OnUnknown = "error"

    def seed_field(self, bound: WeightField) -> WeightField:
        """The weights without their link, divided by the sum of their magnitudes.

        Weights that are all negative (class 0 of a one-channel output) explain -S.

        Raises:
            TargetError: For weights of both signs in one image, and for errors.
        """
        if any(term.link == "square" for term in bound.terms):
            raise TargetError(
                "excitation backprop shares out evidence for a score, and an error of a "
                "reconstruction has none; explain the intensity instead"
            )
        weights = sum((term.weights for term in bound.terms[1:]), bound.terms[0].weights)
        flat = weights.flatten(1)
        if bool(((flat > 0).any(1) & (flat < 0).any(1)).any()):
            raise TargetError(
                "excitation backprop starts from weights of one sign, and this target contrasts "
                "two scores; explain one of them with contrastive_excitation_backprop"
            )
        wide = flat.to(accumulator(flat))
        normalized = wide / wide.abs().sum(1, keepdim=True).clamp(min=1e-30)
        seed = (-normalized if self.against else normalized).to(weights).reshape(weights.shape)
        return replace(bound, terms=(Term(seed),), offset=torch.zeros_like(bound.offset))

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Descriptions of functions that the mode did not see."""
        return unseen_calls(output, image, _NODES)

    def mode(self) -> RuleMode:
        """A context for the image forward."""
        return _ExcitationForward(self.on_unknown, self.against)


class _ExcitationForward(ExcitationMode):
    """Gives every call the redistribution of its winning probability as backward."""

    def __init__(self, on_unknown: OnUnknown, against: bool) -> None:
        super().__init__()
        self._on_unknown, self._against = on_unknown, against

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with the redistribution of probability as its backward."""
        if not self.depends(*call.operands()):
            return native()
        if call.kind is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its gates, so excitation backprop cannot treat "
                "it; use the rule 'plain'"
            )
        result = self._result(call, native)
        self.gates.mark(call, result, self)
        return result

    def report_unknown(self, function: str) -> None:
        """Refuses, or warns about, a function without a rule."""
        if self._on_unknown == "error":
            raise RuleError(_no_rule_message(function))
        remark = f"excitation backprop has no rule for {function}; it got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def residuals(self) -> dict[str, float]:
        """Probability that ended at constants or at units which no input raises."""
        return {"unraised_against" if self._against else "unraised": self.lost.amount}

    def _result(self, call: Call, native: Callable[[], Any]) -> Any:
        decomposed = None if call.name in ("maximum", "minimum") else decomposition(call)
        if decomposed is not None:
            return self._composite(call, decomposed, native)
        outcome = redistribute(self, call, native)
        if isinstance(outcome, str):
            return self._raise_on_probability(call, outcome, native)
        if outcome is NotImplemented:
            return self._run_native(call, native)
        self.treated[call.name] += 1
        return write_result(call, outcome)

    def _run_native(self, call: Call, native: Callable[[], Any]) -> Any:
        """The call under torch's own derivative; probability of its constants counts as lost."""
        if call.name not in (*CONCATENATING, *FILLING):
            return native()
        return run_booking_constants(call, native, self.depends, self.lost.add)

    def _composite(
        self, call: Call, decomposed: Callable[[], Any], native: Callable[[], Any]
    ) -> Any:
        with self:
            surrogate = decomposed()
        if surrogate is NotImplemented:
            return self._raise_on_probability(call, call.name, native)
        if call.inplace or call.out is not None:
            return write_result(call, surrogate)
        with torch.no_grad():
            value = native()
        return with_surrogate_gradients(surrogate, value)

    def _raise_on_probability(self, call: Call, description: str, native: Callable[[], Any]) -> Any:
        """A call without a rule: an error once probability reaches it.

        Calls that only compute gates or weights are allowed.
        """
        if self._on_unknown == "warn" or call.inplace or call.out is not None:
            self.report_unknown(description)
            return native()
        message = _no_rule_message(description)

        def refuse(q: Tensor) -> tuple[Tensor]:  # noqa: ARG001
            raise RuleError(message)

        def guarded(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            return with_redistribution(tensor.detach(), (tensor,), refuse)

        return map_tensors(native(), guarded)


def _no_rule_message(function: str) -> str:
    return (
        f"excitation backprop has no rule for {function}, called in {caller()}; "
        "on_unknown: warn gives it the plain gradient"
    )
