"""CAM reducers: omega_kv A_kv of one point, summed over channels.

Values and gradients are ``(1, K, *positions)``; the windows of a windowed network are one more
axis of positions, so that means over positions are means over the whole volume. A layer without
positions has omega = G, hence the sum of A G.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.engine.gradients.reducers import Reducer, TapBatch
from voxplain.engine.network_layers import Assembly

_SMALL = 1e-12


class CamReducer(Reducer):
    """A CAM of one point: ``(1, *positions)``, or ``(K, *positions)`` with its channels.

    Attributes:
        sums_channels: Whether the channels are summed.
        windows: How the windows of a windowed network come together on the image.
        exact_in_windows: Whether overlapping windows then give the map of the whole volume. They do
            not where products or rectifiers see the gradient of one window at a time.
    """

    sums_channels = True
    windows: ClassVar[Assembly] = "blend"
    exact_in_windows: ClassVar[bool] = True

    def __init__(self) -> None:
        self.redundancy = 1.0
        self._cam: Tensor | None = None

    def update(self, points: TapBatch) -> None:
        """Takes the single point of the stream."""
        activation, gradient = points.value[0], points.gradient[0]
        self.redundancy = points.redundancy
        cam = self.weighted(activation, gradient)
        self._cam = cam.sum(dim=0, keepdim=True) if self.sums_channels else cam

    def result(self) -> Tensor:
        """The CAM at the resolution of the layer."""
        if self._cam is None:
            raise ValueError("no point was seen")
        return self._cam

    @abstractmethod
    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """omega_kv A_kv, ``(K, *positions)``."""


class ChannelMean(CamReducer):
    """Grad-CAM: the mean gradient of a channel (Selvaraju et al., 2017)."""

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """mean_v(G) A."""
        axes = _position_axes(gradient)
        mean = gradient.mean(dim=axes, keepdim=True) if axes else gradient
        return self.redundancy * mean * activation

    @classmethod
    def unsummed(cls) -> ChannelMean:
        """The same with the channels kept apart."""
        reducer = cls()
        reducer.sums_channels = False
        return reducer


class PlusPlus(CamReducer):
    """Grad-CAM++ (Chattopadhay et al., 2018); an exactly zero gradient contributes 0.

    The denominator 2 G^2 + (sum A) G^3 = G^2 (2 + G sum A) is divided through by G^2 and kept
    away from 0 by its sign, instead of adding a constant that would swamp small gradients.
    """

    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """sum_v(a ReLU(G)) A."""
        rest = 2 + _total(activation) / self.redundancy * gradient
        guarded = torch.where(rest.abs() < 1e-6, torch.full_like(rest, 1e-6).copysign(rest), rest)
        share = torch.where(gradient == 0, torch.zeros_like(guarded), 1 / guarded)
        return _total(share * functional.relu(gradient)) * activation


class XGrad(CamReducer):
    """XGrad-CAM (Fu et al., 2020); a channel whose activations cancel contributes 0."""

    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(sum_v G A / sum_v A) A."""
        total = _total(activation)
        scale = _total(activation.abs())
        vanishing = total.abs() <= 1e-6 * scale + _SMALL
        safe = torch.where(vanishing, torch.ones_like(total), total)
        ratio = self.redundancy * _total(gradient * activation) / safe
        return torch.where(vanishing, torch.zeros_like(total), ratio) * activation


class LayerCamWeights(CamReducer):
    """Layer-CAM (Jiang et al., 2021)."""

    windows = "sum"
    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """ReLU(G) A."""
        return functional.relu(gradient) * activation


class Elementwise(CamReducer):
    """HiRes-CAM (Draelos and Carin, 2020)."""

    windows = "sum"
    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """G A."""
        return gradient * activation


class ElementwiseRectified(CamReducer):
    """Element-wise Grad-CAM."""

    windows = "sum"
    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """ReLU(G A)."""
        return functional.relu(gradient * activation)


class FirstComponent(CamReducer):
    """Eigen-CAM: projection on the first principal axis of the channels.

    From the K x K Gram matrix, so that memory does not grow with positions squared. The sign of a
    singular vector is arbitrary; the map is oriented along sum_k G A. Positions that overlapping
    windows share count more than once.
    """

    exact_in_windows = False

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The projection, as one channel."""
        evidence = (gradient * activation).sum(dim=0)
        return self._oriented(self.pattern(activation, gradient), evidence)

    def pattern(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The channels ``(K, *positions)`` whose first principal axis is taken."""
        del gradient
        return activation

    def _oriented(self, pattern: Tensor, evidence: Tensor) -> Tensor:
        flat = pattern.flatten(1).double() if pattern.ndim > 1 else pattern.double()[:, None]
        centered = flat - flat.mean(dim=1, keepdim=True)
        _, vectors = torch.linalg.eigh(centered @ centered.T)
        projected = (vectors[:, -1] @ centered).view(1, *pattern.shape[1:])
        direction = projected.flatten() - projected.mean()
        wanted = evidence.double().flatten() - evidence.double().mean()
        oriented: Tensor = projected if float(direction @ wanted) >= 0 else -projected
        return oriented.to(pattern.dtype)


class PositionProduct(FirstComponent):
    """Eigen-Grad-CAM: the first component of G A."""

    windows = "sum"
    exact_in_windows = False

    def pattern(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Activation times gradient."""
        return activation * gradient


def _position_axes(values: Tensor) -> tuple[int, ...]:
    return tuple(range(1, values.ndim))


def _total(values: Tensor) -> Tensor:
    """Sum over positions, ``(K, 1, ..., 1)``; the value itself without positions."""
    axes = _position_axes(values)
    return values.sum(dim=axes, keepdim=True) if axes else values
