"""The result of an audit: a table of function calls, and a verdict on each backward rule."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

FORWARD_BOUND = 1e-6
"""Largest relative change of the output under a rule."""
COMPLETENESS_BOUND = 1e-3
"""Largest relative error of the sum of a DeepLIFT map."""
CONSERVATION_BOUND = 1e-3
"""Largest relative error of the sum of a relevance map and of what biases and stabilizers keep."""


@dataclass(frozen=True)
class AuditedCall:
    """The calls of one function in a forward pass.

    Attributes:
        function: Canonical name.
        count: Calls that depend on the image.
        layers: Paths of the calling modules; "" is the network itself.
        family: Kind of operation, such as ``linear`` or ``rectifier``.
        nonlinear: Whether these calls are nonlinear in the image.
        shapes: Operand shapes of the first call.
        treatment: Per rule: ``rule``, ``decomposed`` or ``plain``.
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
    """How each backward rule treats the functions of a network.

    Attributes:
        calls: Every function that depends on the image.
        unknown: Functions without a rule, and selections by the values of the image itself.
        invisible: Modules and functions whose calls no rule can see, with the reason.
        checkpointed: Segments whose activation checkpoint was switched off for the rules.
        forward_difference: Per rule, max abs(y_rule - y) / max abs(y).
        completeness: Per baseline (``zero``, ``blurred``), abs(sum a - Delta S) / abs(Delta S) of
            DeepLIFT in float64, worst image; S is the mean class-1 output (class 0 of one).
        conservation: Per rule that conserves relevance, abs(S - map - biases - stabilizers) /
            abs(S), all images together.
        guided_equals_plain: Whether no rectifier was treated; None if the rule was not tried.
        failures: Per rule, why it cannot be used.
        remarks: Per rule, warnings for readers of its maps.
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
        """Whether the rule sees and treats every call that it must treat."""
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
        """Number of calls that need a rule, by function."""
        return {call.function: call.count for call in self.calls if call.nonlinear}

    def table(self, linear: bool = False) -> list[dict[str, Any]]:
        """One row per function, in the order of the number of calls.

        Args:
            linear: Include functions that need no rule.
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
        """All attributes, and ``covered`` per rule, as JSON."""
        rules = [*self.forward_difference, *self.failures]
        verdicts = {rule: self.covered(rule) for rule in dict.fromkeys(rules)}
        return json.dumps({**asdict(self), "covered": verdicts}, indent=2)


def _shortened(layers: tuple[str, ...], limit: int = 3) -> str:
    names = [layer or "(network)" for layer in layers[:limit]]
    more = len(layers) - limit
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
