"""Synthesis: images that drive units, classes and layers of a network, and when to believe them."""

from __future__ import annotations

from voxplain.synthesis.image_statistics import ImageStatistics, measure
from voxplain.synthesis.methods import SynthesisMethod, parse_synthesis, synthesis_methods
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.outputs import parse_objective
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.reliability.panel import ReliabilityPanel, reliability_panel
from voxplain.synthesis.result import Synthesis
from voxplain.synthesis.synthesize import synthesize
from voxplain.synthesis.transforms import Transforms

__all__ = [
    "ImageStatistics",
    "Objective",
    "Regularization",
    "ReliabilityPanel",
    "Synthesis",
    "SynthesisMethod",
    "Transforms",
    "measure",
    "parse_objective",
    "parse_synthesis",
    "reliability_panel",
    "synthesis_methods",
    "synthesize",
]
