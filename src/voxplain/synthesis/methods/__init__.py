"""All methods of synthesis: importing this module fills their registry."""

from __future__ import annotations

from voxplain.synthesis.methods import (
    accentuation,
    activation_atlas,
    activation_grid,
    deep_dream,
    inversion,
    visualization,
)
from voxplain.synthesis.methods.base import (
    SynthesisMethod,
    parse_synthesis,
    registered,
    synthesis_methods,
)

__all__ = [
    "SynthesisMethod",
    "accentuation",
    "activation_atlas",
    "activation_grid",
    "deep_dream",
    "inversion",
    "parse_synthesis",
    "registered",
    "synthesis_methods",
    "visualization",
]
