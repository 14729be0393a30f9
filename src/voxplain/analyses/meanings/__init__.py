"""What directions that were found without concepts stand for."""

from voxplain.analyses.meanings.measured import (
    DirectionMeanings,
    FoundDirections,
    direction_meanings,
)
from voxplain.analyses.meanings.page import (
    meanings_cards,
    meanings_lead,
    meanings_tables,
    with_cards,
)

__all__ = [
    "DirectionMeanings",
    "FoundDirections",
    "direction_meanings",
    "meanings_cards",
    "meanings_lead",
    "meanings_tables",
    "with_cards",
]
