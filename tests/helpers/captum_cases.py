"""Networks on which voxplain and captum are compared, and the calls of captum."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from networks import Summed, assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.targets import Pixelwise

CHANNELS = 2
LABEL = 1


@dataclass(frozen=True, eq=False)
class Case:
    """One network, two images, and the score that both libraries explain.

    Attributes:
        network: Module rectifiers, each used once: what captum can treat.
        images: ``(2, 2, *spatial)``.
        references: Three other images.
        target: For voxplain.
        summed: Per image, the network that gives captum the same score as output 0.
    """

    network: nn.Module
    images: Tensor
    references: Tensor
    target: dict[str, Any]
    summed: tuple[nn.Module, ...]

    def ours(self, method: dict[str, Any], seed: int = 0) -> Tensor:
        """The map of both images."""
        with untouched(self.network):
            attributions = explain(
                self.network,
                self.images,
                {**method, "label": "asked"},
                self.target,
                references=self.references,
                seed=seed,
            )
        return attributions["asked"].map

    def captum(self, attribute: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """The maps of captum, one image at a time, on a copy of the network."""
        parts = []
        for network, image in zip(self.summed, self.images, strict=True):
            with _quiet():
                parts.append(attribute(network, image[None].clone()).detach())
        return torch.cat(parts)

    def compare(
        self,
        method: dict[str, Any],
        attribute: Callable[[nn.Module, Tensor], Tensor],
        tolerance: float = 1e-5,
    ) -> None:
        """Both maps are equal relative to the largest value."""
        assert_close(self.ours(method), self.captum(attribute), tolerance, str(method["name"]))

    def layer(self, network: nn.Module, path: str) -> nn.Module:
        """The same layer in the copy for captum."""
        return network.get_submodule(f"network.{path}")


def build(task: str, rank: int, dtype: torch.dtype = torch.float32) -> Case:
    """A classifier with a pooling in the middle, or a segmenter under the pixel-wise target."""
    inputs = images(rank, CHANNELS, 2).to(dtype)
    references = images(rank, CHANNELS, 5)[2:].to(dtype)
    if task == "classifier":
        network = classifier(rank, CHANNELS, halve=True).to(dtype)
        target: dict[str, Any] = {"kind": "class_score", "label": LABEL}
        one_hot = torch.eye(3)[LABEL][None]
        summed = tuple(Summed(network, one_hot) for _ in inputs)
    else:
        network = segmenter(rank, CHANNELS).to(dtype)
        target = {"kind": "pixelwise", "label": LABEL}
        with torch.no_grad():
            predicted = network(inputs).argmax(1) == LABEL
        assert 0 < float(predicted.float().mean()) < 1
        weights = torch.zeros_like(network(inputs).detach())
        weights[:, LABEL] = predicted.to(dtype)
        assert torch.equal(Pixelwise(label=LABEL).bind(network(inputs)).terms[0].weights, weights)
        summed = tuple(Summed(network, row[None]) for row in weights)
    return Case(network, inputs, references, target, summed)


every_case = pytest.mark.parametrize(
    ("task", "rank"),
    [(task, rank) for task in ("classifier", "segmenter") for rank in (2, 3)],
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Captum warns about the hooks and flags that it sets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
