"""Errors with the same cause: their effects point in the same direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from voxplain.records.error_causes import ErrorGroupRecord, ErrorRecord

Array = NDArray[np.float64]
_SHOWN = 3


def grouped(errors: Sequence[ErrorRecord], alike: float) -> list[ErrorGroupRecord]:
    """Groups of errors by average linkage on the cosine similarity of their effects.

    The profile of an error holds the drop of its score under each replacement; what a case does not
    have counts as 0.

    Args:
        errors: With their effects.
        alike: Mean similarity down to which errors are joined.
    """
    if not errors:
        return []
    names = list(dict.fromkeys(row.cause for error in errors for row in error.effects))
    profiles = np.array([_profile(error, names) for error in errors])
    similar = _cosines(profiles)
    labels = _clusters(similar, alike)
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())]
    groups.sort(key=lambda members: (-len(members), members[0]))
    return [_group(errors, members, similar, profiles, names) for members in groups]


def _profile(error: ErrorRecord, names: Sequence[str]) -> list[float]:
    drops = {row.cause: row.drop for row in error.effects}
    return [drops.get(name, 0.0) for name in names]


def _cosines(profiles: Array) -> Array:
    """Similarities ``(n, n)``; of an error without any effect 0 to all others."""
    lengths = np.linalg.norm(profiles, axis=1, keepdims=True)
    units = np.divide(profiles, lengths, out=np.zeros_like(profiles), where=lengths > 0)
    return np.asarray(np.clip(units @ units.T, -1, 1))


def _clusters(similar: Array, alike: float) -> NDArray[np.int64]:
    if len(similar) < 2:
        return np.zeros(len(similar), dtype=np.int64)
    distances = 1 - similar[np.triu_indices(len(similar), 1)]
    tree = hierarchy.linkage(distances, "average")
    return np.asarray(hierarchy.fcluster(tree, 1 - alike, "distance"), dtype=np.int64)


def _group(
    errors: Sequence[ErrorRecord],
    members: NDArray[np.int64],
    similar: Array,
    profiles: Array,
    names: Sequence[str],
) -> ErrorGroupRecord:
    pairs = similar[np.ix_(members, members)][np.triu_indices(len(members), 1)]
    drops = profiles[members].mean(axis=0)
    strongest = [number for number in np.argsort(-drops)[:_SHOWN] if drops[number] > 0]
    return ErrorGroupRecord(
        members=[errors[number].id for number in members],
        similarity=float(pairs.mean()) if len(pairs) else None,
        causes=[names[number] for number in strongest],
    )
