"""A small multilayer perceptron for what is left over by an additive model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HIDDEN = 16
_EPOCHS = 400
_RATE = 1e-2
_DECAY = 1e-3
_EVERY = 10


class Perceptron:
    """<u, tanh(V z + a)> + c in float64, trained with the whole data at once.

    Every fourth row is not trained on and says when to stop; where no step ever helps there, the
    perceptron stays zero.

    Args:
        rows: Inputs ``(n, M)``.
        values: What to learn, ``(n,)``.
    """

    def __init__(self, rows: Tensor, values: Tensor) -> None:
        self._scale = float(values.std(correction=0)) or 1.0
        self._center = rows.double().mean(dim=0)
        with torch.inference_mode(False), torch.enable_grad():
            self._weights = self._trained(rows.double().clone(), values.double().clone())

    def __call__(self, rows: Tensor) -> Tensor:
        """What it says, ``(n,)``."""
        return self._of(rows.double(), self._weights) * self._scale

    def _of(self, rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
        first, first_bias, last, last_bias = weights
        return torch.tanh((rows - self._center) @ first.T + first_bias) @ last + last_bias

    def _trained(self, rows: Tensor, values: Tensor) -> list[Tensor]:
        watched = torch.arange(len(rows)) % 4 == 3
        wanted = values / self._scale
        weights = self._start(rows.shape[1])
        best, least = [part.detach().clone() for part in weights], float("inf")
        steps = torch.optim.Adam(weights, lr=_RATE, weight_decay=_DECAY)
        for epoch in range(_EPOCHS):
            if epoch % _EVERY == 0:
                with torch.no_grad():
                    error = self._error(rows[watched], wanted[watched], weights)
                    if float(error) < least:
                        best = [part.detach().clone() for part in weights]
                        least = float(error)
            steps.zero_grad()
            self._error(rows[~watched], wanted[~watched], weights).backward()  # type: ignore[no-untyped-call]
            steps.step()
        return best

    def _error(self, rows: Tensor, wanted: Tensor, weights: Sequence[Tensor]) -> Tensor:
        return (self._of(rows, weights) - wanted).square().mean()

    def _start(self, inputs: int) -> list[Tensor]:
        """Hidden units at random, always the same, and an output of zero."""
        source = torch.Generator().manual_seed(0)
        first = torch.randn(_HIDDEN, inputs, generator=source, dtype=torch.float64)
        start = [
            first * (3 / inputs) ** 0.5,
            torch.zeros(_HIDDEN, dtype=torch.float64),
            torch.zeros(_HIDDEN, dtype=torch.float64),
            torch.zeros((), dtype=torch.float64),
        ]
        return [part.requires_grad_() for part in start]


__all__ = ["Perceptron"]
