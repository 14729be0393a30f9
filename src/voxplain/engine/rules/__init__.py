"""Backward rules: differentiation replaced as functions are called, with nothing hooked or edited.

A rule is a ``torch.overrides.TorchFunctionMode`` that sees each torch function as the network
calls it, lets the ordinary value through and puts its own autograd function in the graph.
"""

from __future__ import annotations

from voxplain.engine.rules.calls import Call, Family
from voxplain.engine.rules.deep_lift.alignment import Recording
from voxplain.engine.rules.deep_lift.rule import DeepLift
from voxplain.engine.rules.excitation.rule import Excitation
from voxplain.engine.rules.guard import Watch, guard
from voxplain.engine.rules.lrp.rule import Lrp, LrpMode
from voxplain.engine.rules.mode import Plain, Rule, RuleMode, Through
from voxplain.engine.rules.rectifiers import Deconvnet, Guided

__all__ = [
    "Call",
    "Deconvnet",
    "DeepLift",
    "Excitation",
    "Family",
    "Guided",
    "Lrp",
    "LrpMode",
    "Plain",
    "Recording",
    "Rule",
    "RuleMode",
    "Through",
    "Watch",
    "guard",
]
