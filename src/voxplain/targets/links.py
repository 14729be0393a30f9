"""Links: raw outputs, probabilities and log-odds, and the mask of a predicted class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["auto", "softmax", "sigmoid", "none"]
Link = Literal["identity", "probability", "log_odds"]


def resolve_activation(activation: Activation, classes: int) -> Activation:
    """The activation itself; for ``auto`` sigmoid with one output channel, softmax with more."""
    if activation != "auto":
        return activation
    return "sigmoid" if classes == 1 else "softmax"


def apply_link(output: Tensor, link: Link, activation: Activation) -> Tensor:
    """The output ``(B, K, *spatial)`` on the scale of a link, of the same shape.

    ``log_odds`` is log(p / (1 - p)): the logit under sigmoid, the logit minus the log-sum-exp of
    the other classes under softmax.
    """
    activation = resolve_activation(activation, output.shape[1])
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
    """Class probabilities, of the shape of the output."""
    activation = resolve_activation(activation, output.shape[1])
    if activation == "none":
        return output
    return functional.softmax(output, dim=1) if activation == "softmax" else torch.sigmoid(output)


def predicted_mask(output: Tensor, label: int, activation: Activation, threshold: float) -> Tensor:
    """Where a class is predicted, ``(B, *spatial)`` boolean.

    One channel has class 1 above the probability threshold and class 0 below. Under softmax the
    class with the largest score is predicted; under sigmoid each class above the threshold.
    """
    classes = output.shape[1]
    if classes == 1:
        above = probabilities(output, activation)[:, 0] > threshold
        return above if label == 1 else ~above
    if resolve_activation(activation, classes) == "sigmoid":
        return torch.sigmoid(output[:, label]) > threshold
    return _has_largest_score(output, label)


def _has_largest_score(output: Tensor, label: int) -> Tensor:
    """``output.argmax(dim=1) == label``, which over strided channels takes ten times as long.

    Of equal scores the first counts, as with argmax.
    """
    score = output[:, label]
    is_largest = torch.ones_like(score, dtype=torch.bool)
    if label > 0:
        is_largest &= score > output[:, :label].amax(dim=1)
    if label < output.shape[1] - 1:
        is_largest &= score >= output[:, label + 1 :].amax(dim=1)
    return is_largest


def _logsumexp_of_others(output: Tensor) -> Tensor:
    classes = output.shape[1]
    others = [[k for k in range(classes) if k != label] for label in range(classes)]
    return torch.stack([torch.logsumexp(output[:, rest], dim=1) for rest in others], dim=1)
