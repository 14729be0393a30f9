"""A top-k sparse autoencoder: activations as sums of few of many directions.

Papers: Makhzani and Frey, k-sparse autoencoders, 2013; Gao et al., Scaling and evaluating sparse
autoencoders, 2024 (dead directions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.directions.directions import Directions, largest
from voxplain.engine.randomness import generator

_REVIVAL = 1 / 32
_IDLE = 50
"""Steps without being active after which a direction counts as dead and is trained on what the
others leave over."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """How an autoencoder is trained.

    Attributes:
        directions: How many there are.
        active: How many of them a vector is made of, at the most.
        steps: Of Adam.
        batch: Vectors per step.
        rate: Of learning, times the root of the number of channels; it falls to 0 over the second
            half.
    """

    directions: int
    active: int
    steps: int = 2000
    batch: int = 512
    rate: float = 0.05


def train_autoencoder(
    values: Tensor, settings: AutoencoderSettings, key: tuple[object, ...]
) -> Directions:
    """Directions of length 1 that activations are sums of, with what reads them.

    The loss is |x - sum_d z_d v_d - c|² with z the largest readings, as far as positive.
    Directions start at vectors of the data. Those that are no longer active are trained to
    explain, in the same way, what the others leave over, with a weight of 1/32.

    Args:
        values: ``(N, K)``.
        settings: Numbers of directions, steps and so on.
        key: What start and batches depend on.
    """
    source = generator(*key)
    center = values.median(dim=0).values
    scale = float((values - center).square().sum(dim=1).mean().sqrt()) or 1.0
    scaled = (values - center) / scale
    training = _Training(scaled, settings, source)
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(settings.steps):
            training.step(step)
    return training.directions(center, scale)


class _Training:
    def __init__(
        self, values: Tensor, settings: AutoencoderSettings, source: torch.Generator
    ) -> None:
        self._values, self._settings, self._source = values, settings, source
        start = _start(values, settings.directions, source)
        self._decoder = start.clone().requires_grad_(True)
        self._encoder = start.clone().requires_grad_(True)
        self._bias = torch.zeros(len(start)).requires_grad_(True)
        self._center = torch.zeros(values.shape[1]).requires_grad_(True)
        parameters = [self._decoder, self._encoder, self._bias, self._center]
        self._rate = settings.rate / values.shape[1] ** 0.5
        self._optimizer = torch.optim.Adam(parameters, lr=self._rate)
        self._idle = torch.zeros(len(start), dtype=torch.long)

    def step(self, number: int) -> None:
        """One step on a batch of vectors."""
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * min(1.0, 2 * (1 - number / settings.steps))
        picks = torch.randint(len(self._values), (settings.batch,), generator=self._source)
        batch = self._values[picks]
        readings = (batch - self._center) @ self._encoder.T + self._bias
        code = largest(readings, settings.active)
        rest = batch - self._center - code @ self._decoder
        loss = rest.square().sum(dim=1).mean()
        is_dead = self._idle > _IDLE
        if bool(is_dead.any()):
            loss = loss + _REVIVAL * self._revival(readings, rest.detach(), is_dead)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        with torch.no_grad():
            self._decoder.copy_(functional.normalize(self._decoder, dim=1))
            self._idle = torch.where((code > 0).any(dim=0), 0, self._idle + 1)

    def _revival(self, readings: Tensor, rest: Tensor, is_dead: Tensor) -> Tensor:
        """What dead directions, by the largest of their readings, leave of what is left over."""
        chosen = readings.masked_fill(~is_dead, -torch.inf)
        count = min(int(is_dead.sum()), max(1, rest.shape[1] // 2))
        kept = chosen.topk(count, dim=1)
        code = torch.zeros_like(readings).scatter(1, kept.indices, kept.values)
        left = (rest - code @ self._decoder).square().sum(dim=1)
        return left.mean()

    def directions(self, center: Tensor, scale: float) -> Directions:
        """The directions in units of the activations."""
        names = tuple(f"direction {number}" for number in range(len(self._decoder)))
        return Directions(
            layer="",
            vectors=self._decoder.detach().clone(),
            readout=self._encoder.detach().clone(),
            offset=scale * self._bias.detach(),
            center=center + scale * self._center.detach(),
            names=names,
            reading="top_k",
            active=self._settings.active,
            found_by="top-k sparse autoencoder",
        )


def _start(values: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Vectors of the data of length 1, ``(D, K)``."""
    lengths = values.norm(dim=1)
    candidates = (lengths > 1e-6 * lengths.max()).nonzero()[:, 0]
    if not len(candidates):
        return functional.normalize(torch.randn(count, values.shape[1], generator=source), dim=1)
    order = candidates[torch.randperm(len(candidates), generator=source)]
    picks = order.repeat(-(-count // len(order)))[:count]
    noise = 1e-3 * torch.randn(count, values.shape[1], generator=source)
    return functional.normalize(functional.normalize(values[picks], dim=1) + noise, dim=1)
