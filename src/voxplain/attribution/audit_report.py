"""What an audit found: a table of calls, and a verdict on each backward rule."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

FORWARD_BOUND = 1e-6
"""Largest relative change of the output under a rule."""
COMPLETENESS_BOUND = 1e-3
"""Largest relative error of the sum of a DeepLIFT map."""
CONSERVATION_BOUND = 1e-3
"""Largest relative error of the sum of a map of relevance and of what is booked beside it."""


@dataclass(frozen=True)
class AuditedCall:
    """All calls of one function in one forward pass.

    Attributes:
        function: Canonical name.
        count: Calls that depend on the image.
        layers: Paths of the modules that made them; "" is the network itself.
        family: Kind of mathematics.
        nonlinear: Whether these calls are nonlinear in the image.
        shapes: Operand shapes of the first call.
        treatment: Per rule: ``rule`` or ``plain``.
    """

    function: str
    count: int
    layers: tuple[str, ...]
    family: str
    nonlinear: bool
    shapes: tuple[tuple[int, ...], ...]
    treatment: dict[str, str]


@dataclass(frozen=True)
class Audit:
    """What a network does, seen through each rule.

    Attributes:
        calls: Every function that depends on the image.
        unknown: Functions without a family, and selections by the image's own values.
        invisible: Parts that no rule can see into, with the reason.
        checkpointed: Segments whose activation checkpoint was switched off for the rules.
        forward_difference: Per rule, max abs(y_rule - y) / max abs(y).
        completeness: Per baseline (``zero``, ``blurred``), abs(sum a - Delta S) / abs(Delta S) of
            DeepLIFT in float64, worst image; S is the mean class-1 output (class 0 of one).
        conservation: Per rule that hands on a conserved sum, abs(S - map - biases - stabilizers) /
            abs(S), all images together.
        guided_equals_plain: Whether no rectifier was treated; None if not asked.
        failures: Per rule, why it cannot be used.
        remarks: Per rule, what a reader of its maps should know.
    """

    calls: tuple[AuditedCall, ...] = ()
    unknown: tuple[str, ...] = ()
    invisible: tuple[str, ...] = ()
    checkpointed: int = 0
    forward_difference: dict[str, float] = field(default_factory=dict)
    completeness: dict[str, float] = field(default_factory=dict)
    conservation: dict[str, float] = field(default_factory=dict)
    guided_equals_plain: bool | None = None
    failures: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def covered(self, rule: str) -> bool:
        """Whether every call that the rule must treat is seen and treated."""
        if rule == "plain":
            return rule not in self.failures
        if rule in self.failures or self.invisible or rule not in self.forward_difference:
            return False
        if not self.forward_difference[rule] <= FORWARD_BOUND:
            return False
        if rule == "deep_lift":
            return self.completeness.get("blurred", 0.0) <= COMPLETENESS_BOUND
        if rule in self.conservation:
            return self.conservation[rule] <= CONSERVATION_BOUND
        return not self.unknown

    @property
    def nonlinear(self) -> dict[str, int]:
        """Calls that need a rule: function to number of calls."""
        return {call.function: call.count for call in self.calls if call.nonlinear}

    def table(self, linear: bool = False) -> list[dict[str, Any]]:
        """One row per function, most calls first.

        Args:
            linear: Also the functions that need no rule.
        """
        rows = [call for call in self.calls if call.nonlinear or linear]
        return [
            {
                "function": call.function,
                "calls": call.count,
                "family": call.family,
                **call.treatment,
                "layers": _shortened(call.layers),
            }
            for call in sorted(rows, key=lambda call: -call.count)
        ]

    def to_json(self) -> str:
        """Everything, with ``covered`` per rule, as JSON."""
        rules = [*self.forward_difference, *self.failures]
        verdicts = {rule: self.covered(rule) for rule in dict.fromkeys(rules)}
        return json.dumps({**asdict(self), "covered": verdicts}, indent=2)


def _shortened(layers: tuple[str, ...], shown: int = 3) -> str:
    names = [layer or "(network)" for layer in layers[:shown]]
    more = len(layers) - shown
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
