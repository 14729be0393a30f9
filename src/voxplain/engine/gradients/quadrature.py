"""Nodes and weights on [0, 1], in float64 and with weights that sum to 1."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ConfigError

Quadrature = Literal["gauss_legendre", "left", "right", "midpoint", "trapezoid", "pair"]
Array = NDArray[np.float64]


def nodes_and_weights(rule: Quadrature, count: int) -> tuple[Array, Array]:
    """Nodes in ascending order and their weights.

    ``pair`` is kept for parity with published CT code: both ends included, equal weights, hence
    slightly biased.

    Raises:
        ConfigError: If a rule with both ends is asked for fewer than two nodes.
    """
    if rule in ("trapezoid", "pair") and count < 2:
        raise ConfigError(f"the {rule} rule needs at least 2 steps")
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(count)
        return (1 + nodes) / 2, weights / weights.sum()
    steps = np.arange(count, dtype=np.float64)
    equal = np.full(count, 1 / count)
    if rule == "trapezoid":
        ends = np.full(count, 1 / (count - 1))
        ends[[0, -1]] /= 2
        return steps / (count - 1), ends
    offsets = {"left": steps, "right": steps + 1, "midpoint": steps + 0.5}
    return (steps / (count - 1), equal) if rule == "pair" else (offsets[rule] / count, equal)
