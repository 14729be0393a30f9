"""Backward rules: differentiation replaced as functions are called, with nothing hooked or edited.

A rule is a ``torch.overrides.TorchFunctionMode`` that sees each torch function as the network
calls it, lets the ordinary value through and puts its own autograd function in the graph.
"""

from __future__ import annotations

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.deep_lift.alignment import Recording
from voxplain.engine.rules.deep_lift.rule import DeepLift
from voxplain.engine.rules.excitation.rule import Excitation
from voxplain.engine.rules.guard import GuardRecord, guard
from voxplain.engine.rules.lrp.rule import Lrp, LrpMode
from voxplain.engine.rules.mode import Plain, Rule, RuleMode, ThroughLayer
from voxplain.engine.rules.rectifiers import Deconvnet, Guided

__all__ = [
    "Call",
    "Deconvnet",
    "DeepLift",
    "Excitation",
    "GuardRecord",
    "Guided",
    "Lrp",
    "LrpMode",
    "OperationKind",
    "Plain",
    "Recording",
    "Rule",
    "RuleMode",
    "ThroughLayer",
    "guard",
]
