"""LRP rules in matrix form, from the Jacobian of a linear function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """A linear call as a matrix.

    Attributes:
        weights: w_ji, ``(outputs, inputs)``.
        input: x_i.
        bias: b_j.
    """

    weights: Tensor
    input: Tensor
    bias: Tensor

    @property
    def contributions(self) -> Tensor:
        """c_ji = w_ji x_i."""
        return self.weights * self.input

    @property
    def sums(self) -> Tensor:
        """z_j with the bias."""
        return self.contributions.sum(1) + self.bias


def dense(function: Callable[[Tensor], Tensor], x: Tensor) -> Dense:
    """The matrix of an affine function at one image; x has a leading axis of 1."""
    origin = function(torch.zeros_like(x)).detach().flatten()
    jacobian = torch.autograd.functional.jacobian(function, x)
    return Dense(jacobian.reshape(origin.numel(), x.numel()), x.flatten(), origin)


def stabilized(sums: Tensor, epsilon: float = 1e-6) -> Tensor:
    """z + e sign(z), e relative to the root mean square of z."""
    size = epsilon * sums.square().mean().sqrt()
    return sums + torch.where(sums < 0, -size, size)


def epsilon(layer: Dense, relevance: Tensor) -> Tensor:
    """R_i = sum_j c_ij / (z_j + e sign z_j) R_j."""
    return layer.contributions.T @ (relevance / stabilized(layer.sums))


def gamma(layer: Dense, relevance: Tensor, favor: float = 0.25) -> Tensor:
    """C + gamma c+ where z_j >= 0, c + gamma c- where it is negative, bias among them."""
    every = torch.cat([layer.contributions, layer.bias[:, None]], 1)
    upward = (layer.sums >= 0)[:, None]
    favored = every + favor * torch.where(upward, every.clamp(min=0), every.clamp(max=0))
    share = favored / stabilized(favored.sum(1))[:, None]
    return share[:, :-1].T @ relevance


def alpha_beta(layer: Dense, relevance: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha c+ / sum c+ R - beta c- / sum c- R."""
    relevance_in = torch.zeros_like(layer.input)
    for weight, part in (
        (alpha, layer.contributions.clamp(min=0)),
        (-beta, layer.contributions.clamp(max=0)),
    ):
        sums = part.sum(1)
        quotient = torch.where(sums == 0, 0.0, relevance / stabilized(sums))
        relevance_in = relevance_in + weight * (part.T @ quotient)
    return relevance_in


def box(layer: Dense, relevance: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """X w - l w+ - h w-, by its sum."""
    share = layer.contributions - low.flatten() * layer.weights.clamp(min=0)
    share = share - high.flatten() * layer.weights.clamp(max=0)
    return share.T @ (relevance / stabilized(share.sum(1)))


def flat(layer: Dense, relevance: Tensor) -> Tensor:
    """Equal parts for all inputs in the receptive field of an output."""
    field = (layer.weights != 0).to(layer.input)
    return (field / field.sum(1, keepdim=True).clamp(min=1)).T @ relevance
