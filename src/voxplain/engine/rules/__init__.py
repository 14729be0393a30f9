"""Backward rules: other derivatives for torch functions, without hooks or changed networks.

A rule runs as a ``torch.overrides.TorchFunctionMode`` that receives each torch function as the
network calls it, keeps its value and replaces its backward by an autograd function of its own.
"""

from __future__ import annotations

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.deep_lift.alignment import Recording
from voxplain.engine.rules.deep_lift.rule import DeepLiftRule
from voxplain.engine.rules.excitation.rule import Excitation
from voxplain.engine.rules.lrp.mode import LrpMode
from voxplain.engine.rules.lrp.rule import Lrp
from voxplain.engine.rules.mode import Plain, Rule, RuleMode, ThroughLayer
from voxplain.engine.rules.rectifiers import Deconvnet, Guided
from voxplain.engine.rules.visibility import GuardRecord, guard

__all__ = [
    "Call",
    "Deconvnet",
    "DeepLiftRule",
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
