"""Perturbation methods against captum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum import attr
from networks import Summed, assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.targets import Pixelwise, UnperturbedOutput

SIZE = 6


class Case:
    """A classifier or a segmenter, two images, and the scores that captum is given."""

    def __init__(self, task: str, rank: int) -> None:
        build = {"classifier": classifier, "segmenter": segmenter}[task]
        self.network: nn.Module = build(rank, 2)
        self.images = images(rank, 2, 2)
        self.others = images(rank, 2, 4)[2:]
        self.rank = rank
        self.target: dict[str, Any] = {"kind": "class_score", "label": 1}
        self.scored = [(self.network, 1)] * 2
        if task == "segmenter":
            self.target = {"kind": "pixelwise", "label": 1}
            with torch.no_grad():
                output = self.network(self.images)
            fields = Pixelwise(label=1).bind(UnperturbedOutput(output)).terms[0].weights
            self.scored = [(Summed(self.network, field[None]), 0) for field in fields]

    def ours(self, method: dict[str, Any], references: Tensor | None = None) -> Tensor:
        with untouched(self.network):
            attributions = explain(
                self.network, self.images, method, self.target, references=references
            )
        return attributions[method["name"]].map

    def captum(self, attribute: Any) -> Tensor:
        """All channels are removed together, so that captum's channels are equal."""
        parts = [
            attribute(network, image[None], label)[:, :1]
            for (network, label), image in zip(self.scored, self.images, strict=True)
        ]
        return torch.cat(parts).detach()


@pytest.fixture(params=[(task, rank) for task in ("classifier", "segmenter") for rank in (2, 3)])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def _blocks(rank: int) -> Tensor:
    """Blocks of two voxels, numbered."""
    along = torch.arange(SIZE) // 2
    grid = torch.meshgrid(*[along] * rank, indexing="ij")
    numbers = torch.zeros_like(grid[0])
    for axis in grid:
        numbers = numbers * 3 + axis
    return numbers


@pytest.mark.parametrize("fill", [0.0, (0.5, -1.0)])
def test_feature_ablation(case: Case, fill: Any) -> None:
    regions = {"kind": "blocks", "size": 2}
    levels = fill if isinstance(fill, tuple) else (fill, fill)
    baseline = torch.tensor(levels).view(1, 2, *(1,) * case.rank).expand_as(case.images[:1])

    def captum(network: nn.Module, image: Tensor, label: int) -> Tensor:
        return attr.FeatureAblation(network).attribute(
            image, baseline, label, feature_mask=_blocks(case.rank)[None, None]
        )

    spec = {"name": "feature_ablation", "regions": regions, "fill": fill}
    assert_close(case.ours(spec), case.captum(captum), 1e-5)


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (4, 1), (5, 3)])
def test_occlusion(case: Case, window: int, stride: int) -> None:
    def captum(network: nn.Module, image: Tensor, label: int) -> Tensor:
        return attr.Occlusion(network).attribute(
            image,
            (2, *(window,) * case.rank),
            (2, *(stride,) * case.rank),
            0.25,
            label,
            perturbations_per_eval=8,
        )

    spec = {"name": "occlusion", "window": window, "stride": stride, "fill": 0.25}
    assert_close(case.ours(spec), case.captum(captum), 1e-5)


def test_feature_permutation(case: Case) -> None:
    """Captum's permutation of a batch of two: each image gets the regions of the other."""

    def swapped(batch: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask.bool(), batch.flip(0), batch)

    mask = _blocks(case.rank)[None, None]
    expected = []
    for row, (network, label) in enumerate(case.scored):
        permutation = attr.FeaturePermutation(network, swapped)
        actual = permutation.attribute(case.images, target=label, feature_mask=mask)
        expected.append(actual[row : row + 1, :1].detach())
    regions = {"kind": "blocks", "size": 2}
    spec = {"name": "feature_permutation", "regions": regions}
    actual = case.ours(spec, references=case.images)  # the image itself does not count
    assert_close(actual, torch.cat(expected), 1e-5)


def test_feature_permutation_is_the_mean_over_cases(case: Case) -> None:
    spec = {"name": "feature_permutation", "regions": {"kind": "blocks", "size": 2}}
    both = case.ours(spec, references=case.others)
    each = [case.ours(spec, references=other[None]) for other in case.others]
    assert_close(both, torch.stack(each).mean(0), 1e-5)
    assert torch.equal(case.ours({**spec, "references": 1}, references=case.others), each[0])


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("layer", ["act1", "conv2"])
def test_layer_feature_ablation(rank: int, layer: str) -> None:
    network, inputs = classifier(rank, 2), images(rank, 2, 2)
    spec = {"name": "layer_feature_ablation", "layers": layer}
    actual = explain(network, inputs, spec, 1)["layer_feature_ablation"].map
    channels = torch.arange(actual.shape[1]).view(1, -1, *(1,) * rank)
    mask = channels.expand(1, *actual.shape[1:])
    captum = attr.LayerFeatureAblation(network, network.get_submodule(layer))
    assert_close(actual, captum.attribute(inputs, target=1, layer_mask=mask).detach(), 1e-5)
