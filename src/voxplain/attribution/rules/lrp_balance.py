"""The books of LRP: what entered at the output and did not arrive at the image."""

from __future__ import annotations

from torch import Tensor


class Balance:
    """Sums of relevance over one backward, all images of the batch together.

    Conservation: sum of what entered = sum of the map + bias + epsilon.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def take(self, bias: Tensor, epsilon: Tensor) -> None:
        """Books what biases and other constants took, and what stabilizers took."""
        self._book("bias", bias)
        self._book("epsilon", epsilon)

    @property
    def bias(self) -> float:
        """What biases, shifts of norms and other constants took."""
        return self._value("bias")

    @property
    def epsilon(self) -> float:
        """What stabilizers took."""
        return self._value("epsilon")

    def _book(self, name: str, amount: Tensor) -> None:
        self._sums[name] = self._sums[name] + amount if name in self._sums else amount

    def _value(self, name: str) -> float:
        return float(self._sums[name]) if name in self._sums else 0.0
