"""Analyses of a network over the cases of a study: what is inside, and when it is wrong."""

from __future__ import annotations

from voxplain.analyses import (
    directions,
    dissection,
    errors,
    found_directions,
    interventions,
    trails,
    uncertainty,
    visualization,
)
from voxplain.analyses.analysis import (
    RESULT,
    Analysis,
    AnalysisCost,
    AnalysisInputs,
    analyses,
    parse_analysis,
    register,
)

__all__ = [
    "RESULT",
    "Analysis",
    "AnalysisCost",
    "AnalysisInputs",
    "analyses",
    "directions",
    "dissection",
    "errors",
    "found_directions",
    "interventions",
    "parse_analysis",
    "register",
    "trails",
    "uncertainty",
    "visualization",
]
