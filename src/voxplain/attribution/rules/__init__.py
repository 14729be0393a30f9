"""Backward rules: differentiation replaced as functions are called, with nothing hooked or edited.

A rule is a ``torch.overrides.TorchFunctionMode`` that sees each torch function as the network
calls it, lets the ordinary value through and puts its own autograd function in the graph.
"""

from voxplain.attribution.rules.alignment import Recording
from voxplain.attribution.rules.base import Plain, Rule, RuleMode, Through
from voxplain.attribution.rules.calls import Call, Family
from voxplain.attribution.rules.deep_lift import DeepLift
from voxplain.attribution.rules.excitation import Excitation
from voxplain.attribution.rules.guard import Watch, guard
from voxplain.attribution.rules.lrp import Lrp, LrpMode
from voxplain.attribution.rules.rectifiers import Deconvnet, Guided

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
