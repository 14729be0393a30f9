"""How many units of a layer carry an error together, where none carries it alone."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.concepts.errors.causes import Substitutes, Units
from voxplain.concepts.errors.labeled_case import ErrorComponent, LabeledCase
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.records.error_causes import ErrorEffectRecord, TogetherRecord


def together(
    case: LabeledCase,
    error: ErrorComponent,
    tap: Tap,
    effects: Sequence[ErrorEffectRecord],
    substitutes: Substitutes,
    enough: float,
    draws: int,
    seed: int,
) -> TogetherRecord | None:
    """The strongest 2, 4, 8, ... units of a layer, until enough of the error is removed.

    Only units that carry the error, so that its score falls without them. Where no number of them
    is enough, that which removes most.

    Args:
        case: The case.
        error: Of the case.
        tap: The layer.
        effects: Of its single units.
        substitutes: What replaces them.
        enough: Share of the error that has to be removed.
        draws: Random sets of the size that is found.
        seed: Of these.
    """
    own = [row for row in effects if row.kind == "unit" and row.layer == tap.path and row.drop > 0]
    order = [row.channels[0] for row in sorted(own, key=lambda row: -row.drop)]
    if len(order) < 2:
        return None
    removed, units = -1.0, Units("", tap, (), substitutes)
    for count in _sizes(len(order)):
        tried = Units(f"{count} units", tap, tuple(sorted(order[:count])), substitutes)
        share = _removed(case, error, tried)
        if share > removed:
            removed, units = share, tried
        if removed >= enough:
            break
    count = len(units.channels)
    is_enough = removed >= enough
    random = []
    if is_enough and count < len(substitutes.means[tap]):
        source = generator(seed, error.id, tap.path, "together")
        random = [_removed(case, error, each) for each in units.random(case, draws, source)]
    hits = sum(each >= removed for each in random)
    return TogetherRecord(
        layer=tap.path,
        count=count if is_enough else None,
        tried=count,
        channels=units.units,
        removed=removed,
        random_removed=sum(random) / len(random) if random else None,
        draws=len(random),
        p=(1 + hits) / (1 + len(random)) if random else None,
    )


def _sizes(units: int) -> list[int]:
    """2, 4, 8, ... and all."""
    doubled = [2**power for power in range(1, units.bit_length()) if 2**power < units]
    return [*doubled, units]


def _removed(case: LabeledCase, error: ErrorComponent, units: Units) -> float:
    return 1 - units.outcome(case).remaining(error) / error.positions
