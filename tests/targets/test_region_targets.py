"""Targets with a place: their masks and links in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import images, segmenter
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from voxplain.attribution import explain
from voxplain.errors import TargetError
from voxplain.targets import ErrorRegion, Label, Pixelwise, Region, Target, Threshold, WeightField

SHAPE = (6, 7, 5)
every_rank = pytest.mark.parametrize("rank", [2, 3])
every_width = pytest.mark.parametrize("classes", [1, 3])


def dense(rank: int, classes: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, classes, *SHAPE[:rank], dtype=torch.float64)


def weights(field: WeightField) -> Tensor:
    (term,) = field.terms
    return term.weights


def expected_weights(output: Tensor, label: int, mask: Tensor) -> Tensor:
    """1 in the channel of the class where the mask holds; -1 for class 0 of one channel."""
    of_class = torch.zeros_like(output)
    if output.shape[1] == 1:
        of_class[:, 0] = mask.to(output) * (1 if label == 1 else -1)
    else:
        of_class[:, label] = mask.to(output)
    return of_class


def predicted(output: Tensor, label: int) -> Tensor:
    if output.shape[1] > 1:
        return output.argmax(1) == label
    return (output[:, 0] > 0) == bool(label)


@every_rank
@every_width
@pytest.mark.parametrize("label", [0, 1])
class TestEveryRegion:
    """One check for all: the field, its score, its derivative under each link."""

    def cases(self, output: Tensor, label: int) -> list[tuple[Target, Tensor]]:
        rank = output.ndim - 2
        box = ((1, 4), (0, 3), (2, 5))[:rank]
        inside = torch.zeros(output.shape[2:], dtype=torch.bool)
        inside[tuple(slice(*side) for side in box)] = True
        voxel = (2, 3, 1)[:rank]
        single = torch.zeros_like(inside)
        single[voxel] = True
        drawn = torch.rand(output.shape[2:]) > 0.6
        pairs = torch.rand(len(output), *output.shape[2:]) > 0.6
        of_class = predicted(output, label)
        shared: dict[str, Any] = {"label": label}
        components = [(Region(**shared, component=k), _components(of_class, k)) for k in (1, 2)]
        return [
            *((target, mask) for target, mask in components if mask is not None),
            (Pixelwise(**shared), of_class),
            (Label(**shared), of_class),
            (Region(**shared, box=box), inside.expand_as(of_class)),
            (Region(**shared, voxel=voxel), single.expand_as(of_class)),
            (Region(**shared, mask=drawn), drawn.expand_as(of_class)),
            (Region(**shared, mask=drawn.numpy().astype(np.uint8)), drawn.expand_as(of_class)),
            (Region(**shared, mask=pairs), pairs),
            (Region(**shared, mask=drawn.int() * 3 + 1, value=4), drawn.expand_as(of_class)),
            (ErrorRegion(**shared, reference=drawn), of_class & ~drawn),
            (ErrorRegion(**shared, reference=drawn, error="fn"), ~of_class & drawn),
            (ErrorRegion(**shared, reference=pairs, error="fp"), of_class & ~pairs),
        ]

    def test_weights(self, rank: int, classes: int, label: int) -> None:
        output = dense(rank, classes)
        for target, mask in self.cases(output, label):
            field = target.bind(output)
            expected = expected_weights(output, label, mask)
            assert torch.equal(weights(field), expected), target
            score = (output * expected).flatten(1).sum(1)
            torch.testing.assert_close(field.score(output), score)
            for row, words in enumerate(field.in_words):
                unit = "pixels" if rank == 2 else "voxels"
                assert f"over the {int(mask[row].sum())} {unit} " in words
                assert field.size(row) == int(mask[row].sum())

    def test_links(self, rank: int, classes: int, label: int) -> None:
        output = dense(rank, classes)
        probabilities = torch.sigmoid(output) if classes == 1 else torch.softmax(output, 1)
        if classes == 1:
            probabilities = torch.cat([1 - probabilities, probabilities], 1)
        probability = probabilities[:, label]
        for target, mask in self.cases(output, label):
            if isinstance(target, Label):
                continue
            for link, values in (
                ("probability", probability),
                ("log_odds", torch.log(probability / (1 - probability))),
            ):
                linked = target.model_copy(update={"link": link})
                expected = (values * mask).flatten(1).sum(1)
                torch.testing.assert_close(linked.bind(output).score(output), expected)

    def test_cotangent_is_the_derivative(self, rank: int, classes: int, label: int) -> None:
        output = dense(rank, classes)
        moved = output + 0.1 * torch.randn_like(output)
        for link in ("score", "probability", "log_odds"):
            field = Pixelwise(label=label, link=link).bind(output)
            leaf = moved.clone().requires_grad_(True)
            (expected,) = torch.autograd.grad(field.score(leaf).sum(), leaf)
            torch.testing.assert_close(field.cotangent(moved), expected)
            assert field.is_linear is (link == "score")


def _components(masks: Tensor, rank: int) -> Tensor | None:
    """By flood fill over all neighbors, not by the library that the target uses."""
    components = [_component(mask, rank) for mask in masks]
    return (
        torch.stack([component for component in components if component is not None])
        if all(component is not None for component in components)
        else None
    )


def _component(mask: Tensor, rank: int) -> Tensor | None:
    left = {tuple(index) for index in mask.nonzero().tolist()}
    order = sorted(left)
    components = []
    for first in order:
        if first not in left:
            continue
        component, edge = set(), [first]
        left.discard(first)
        while edge:
            here = edge.pop()
            component.add(here)
            near = {at for at in left if max(abs(a - b) for a, b in zip(at, here)) <= 1}  # noqa: B905
            left -= near
            edge += near
        components.append(component)
    components.sort(key=len, reverse=True)  # stable: the first one in order wins a tie
    if len(components) < rank:
        return None
    inside = torch.zeros_like(mask)
    for index in components[rank - 1]:
        inside[index] = True
    return inside


@every_rank
class TestThreshold:
    @every_width
    @pytest.mark.parametrize("foreground", [True, False])
    def test_otsu_of_the_normalized_output(self, rank: int, classes: int, foreground: bool) -> None:
        output = dense(rank, classes) * 7 + 3
        output[:, :, 1:4] += 30
        field = Threshold(label=1, foreground=foreground).bind(output)
        channel = min(1, classes - 1)
        for row in range(2):
            values = output[row, channel].numpy()
            normalized = (values - values.min()) / (values.max() - values.min())
            above = normalized > threshold_otsu(normalized)
            expected = above if foreground else ~above
            assert torch.equal(weights(field)[row, channel] != 0, torch.from_numpy(expected))
        others = [k for k in range(classes) if k != channel]
        assert not weights(field)[:, others].any()
        side = "above the Otsu threshold" if foreground else "not above the Otsu threshold"
        assert side in field.in_words[0]

    @pytest.mark.parametrize("foreground", [True, False])
    def test_class_0_of_one_channel_is_the_complement(self, rank: int, foreground: bool) -> None:
        output = dense(rank)[:, :1]
        one, zero = (Threshold(label=label, foreground=foreground).bind(output) for label in (1, 0))
        inside = weights(one) != 0
        assert torch.equal(weights(zero), -(~inside).to(output))
        total = output.double().flatten(1).sum(1)
        torch.testing.assert_close(one.score(output) - zero.score(output), total)
        chance = [
            Threshold(label=label, foreground=foreground, link="probability").bind(output)
            for label in (1, 0)
        ]
        expected = (1 - output.sigmoid())[~inside].sum()
        assert float(chance[1].score(output).sum()) == pytest.approx(float(expected), rel=1e-5)
        assert zero.labels == (0,) * len(output)

    def test_does_not_depend_on_scale(self, rank: int) -> None:
        output = dense(rank)
        first = weights(Threshold(label=2).bind(output))
        assert torch.equal(first, weights(Threshold(label=2).bind(output * 1e-3 + 5)))

    def test_constant_output(self, rank: int) -> None:
        with pytest.raises(
            TargetError, match="the output is constant, so it has no Otsu threshold"
        ):
            Threshold(label=1).bind(torch.ones_like(dense(rank)))

    def test_gradients_are_not_zero(self, rank: int) -> None:
        """The scores are summed, and not the mask, whose derivative is 0."""
        network, shown = segmenter(rank), images(rank)
        attributions = explain(network, shown, "saliency", {"kind": "threshold", "label": 1})
        assert attributions["saliency"].map.abs().max() > 1e-3


def test_connectivity_includes_corners() -> None:
    """A vessel that steps diagonally is one lesion."""
    output = torch.zeros(1, 2, 4, 4, 4)
    for step in range(4):
        output[0, 1, step, step, step] = 4
    found = weights(Region(label=1, component=1).bind(output))
    assert int(found.sum()) == 4
    labels, count = ndimage.label(output[0, 1].numpy())
    assert count == 4  # by faces alone it would be four
    del labels
