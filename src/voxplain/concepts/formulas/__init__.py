"""Formulas: compositional explanations of units."""

from __future__ import annotations

from voxplain.concepts.formulas.compose import compose
from voxplain.concepts.formulas.search import Formula, PatternCounts, best_formulas, formulas

__all__ = ["Formula", "PatternCounts", "best_formulas", "compose", "formulas"]
