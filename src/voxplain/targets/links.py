"""Links from network outputs to the scale on which a target is stated."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["auto", "softmax", "sigmoid", "none"]
Link = Literal["identity", "probability", "log_odds"]


def settled(activation: Activation, classes: int) -> Activation:
    """What ``auto`` means: sigmoid for one output channel, softmax for more."""
    if activation != "auto":
        return activation
    return "sigmoid" if classes == 1 else "softmax"


def apply_link(output: Tensor, link: Link, activation: Activation) -> Tensor:
    """The linked output, of the shape ``(B, K, *spatial)`` of the output itself.

    ``log_odds`` is log p / (1 - p): the logit itself under sigmoid, the logit minus the
    log-sum-exp of the other classes under softmax.
    """
    activation = settled(activation, output.shape[1])
    if link == "identity":
        return output
    if link == "probability":
        return probabilities(output, activation)
    if activation == "none":
        return torch.logit(output, eps=1e-7)
    if activation == "sigmoid":
        return output
    return output - _logsumexp_of_others(output)


def probabilities(output: Tensor, activation: Activation) -> Tensor:
    """Class probabilities of the shape of the output."""
    activation = settled(activation, output.shape[1])
    if activation == "none":
        return output
    return functional.softmax(output, dim=1) if activation == "softmax" else torch.sigmoid(output)


def predicted_mask(output: Tensor, label: int, activation: Activation, threshold: float) -> Tensor:
    """Where a class is predicted: ``(B, *spatial)``, boolean.

    One channel has two classes, 0 below and 1 above the probability threshold. Under softmax the
    largest score wins; under sigmoid each class is compared with the threshold by itself.
    """
    classes = output.shape[1]
    if classes == 1:
        above = probabilities(output, activation)[:, 0] > threshold
        return above if label == 1 else ~above
    if settled(activation, classes) == "sigmoid":
        return torch.sigmoid(output[:, label]) > threshold
    return _wins(output, label)


def _wins(output: Tensor, label: int) -> Tensor:
    """``output.argmax(dim=1) == label``, which over strided channels takes ten times as long.

    Of equal scores that of the first class wins, as with argmax.
    """
    own = output[:, label]
    won = torch.ones_like(own, dtype=torch.bool)
    if label > 0:
        won &= own > output[:, :label].amax(dim=1)
    if label < output.shape[1] - 1:
        won &= own >= output[:, label + 1 :].amax(dim=1)
    return won


def _logsumexp_of_others(output: Tensor) -> Tensor:
    classes = output.shape[1]
    others = [[k for k in range(classes) if k != label] for label in range(classes)]
    return torch.stack([torch.logsumexp(output[:, part], dim=1) for part in others], dim=1)
