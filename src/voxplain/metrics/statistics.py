"""Statistics over cases, which the report needs as well."""

from voxplain.statistics import (
    FEWEST,
    Comparison,
    Summary,
    benjamini_hochberg,
    bootstrap,
    compare,
    holm,
    summarize,
)

__all__ = [
    "FEWEST",
    "Comparison",
    "Summary",
    "benjamini_hochberg",
    "bootstrap",
    "compare",
    "holm",
    "summarize",
]
