"""Mosaics of four images, and the evidence that lies on the tiles of a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import explained, reason, value
from networks import classifier, images, segmenter
from torch import Tensor, nn
from trained import disks, shapes, trained

from voxplain.attribution import explain
from voxplain.metrics import MetricContext, Value, evaluate
from voxplain.metrics.families.focus import Mosaics, evidence_share, mosaic, quadrants

SCORE = {"kind": "class_score", "label": 1}
OTHER = {"kind": "class_score", "label": 0}


class Level(nn.Module):
    """Class 1 where the weighted mean is above 2, class 0 elsewhere; or one logit."""

    def __init__(self, shape: tuple[int, ...], weights: Tensor | None = None, logits: int = 2):
        super().__init__()
        even = torch.ones(shape, dtype=torch.float64)
        self.weight = nn.Parameter(even if weights is None else weights / weights.mean())
        self.logits = logits

    def forward(self, image: Tensor) -> Tensor:
        mean = (image * self.weight).flatten(1).mean(dim=1, keepdim=True)
        if self.logits == 1:
            return mean - 2
        return torch.cat([2 + 0 * mean, mean], dim=1)


def _flat(level: float, shape: tuple[int, ...]) -> Tensor:
    return torch.full((1, *shape), level, dtype=torch.float64)


def _checkered(level: float, shape: tuple[int, ...]) -> Tensor:
    """No constant image, and one that is flat as a tile."""
    signs = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(dim=0) % 2
    return _flat(level, shape) + 0.1 * (2 * signs - 1)


def _context(
    shape: tuple[int, ...],
    *levels: float,
    method: Any = "input_x_gradient",
    network: nn.Module | None = None,
    **options: Any,
) -> MetricContext:
    """A checkered image of level 3, and references of these levels."""
    others = torch.stack([_flat(level, shape) for level in levels]) if levels else None
    return explained(
        network or Level(shape), _checkered(3, shape), method, references=others, **options
    )


def _focus(context: MetricContext, **parameters: Any) -> Value:
    (field,) = context.fields.values()
    return value("focus", field, context, **parameters)


def _reason(context: MetricContext) -> str:
    (field,) = context.fields.values()
    return reason("focus", field, context)


@pytest.mark.parametrize("shape", [(6, 8), (7, 5), (4, 6, 8), (5, 1, 7), (3, 9, 8)])
def test_tiles_halve_the_two_longest_axes(shape: tuple[int, ...]) -> None:
    tiles = quadrants(shape)
    covered = torch.zeros(shape)
    for tile in tiles:
        covered[tile] += 1
    assert bool((covered == 1).all())
    long = sorted(shape)[-2:]
    sizes = sorted(covered[tile].numel() for tile in tiles)
    thin = covered.numel() // (long[0] * long[1])
    small, large = long[0] // 2 * (long[1] // 2), -(-long[0] // 2) * -(-long[1] // 2)
    assert sizes[0] == thin * small
    assert sizes[-1] == thin * large
    joined = mosaic([_flat(level, shape) for level in (1, 2, 3, 4)], tiles)
    for level, tile in enumerate(tiles, start=1):
        assert bool((joined[0][tile] == level).all())


def test_tiles_are_means_of_blocks() -> None:
    """Antialiased: no voxel is left out."""
    pictures = list(images(2, 3, 4, 8).double())
    tiles = quadrants((8, 8))
    joined = mosaic(pictures, tiles[::-1])
    for picture, tile in zip(pictures, tiles[::-1], strict=True):
        blocks = picture.view(3, 4, 2, 4, 2).mean(dim=(2, 4))
        assert torch.allclose(joined[(slice(None), *tile)], blocks)
    volume = torch.randn(1, 8, 3, 8, dtype=torch.float64)
    joined = mosaic([volume] * 4, quadrants((8, 3, 8)))
    assert torch.allclose(joined[:, :4, :, :4], volume.view(1, 4, 2, 3, 4, 2).mean(dim=(2, 5)))


@pytest.mark.parametrize("shape", [(6, 6), (8, 4), (4, 6, 6), (1, 6, 6)])
def test_known_evidence_gives_its_exact_share(shape: tuple[int, ...]) -> None:
    """Of a sum, the map is the image: two tiles of 3 beside two of 1."""
    result = _focus(_context(shape, 3, 1))
    assert result.value == pytest.approx(6 / 8, abs=1e-12)
    assert result.facts == {"mosaics": 4, "others_of_the_class": 1, "of_other_classes": 1}
    two = _focus(_context(shape, 3, 1, 0.5, 1.5), mosaics=200).value
    assert abs(two - 6 / 8) < 0.02  # each pair of 0.5, 1 and 1.5 equally often
    assert two != pytest.approx(6 / 8, abs=1e-12)
    assert _focus(_context(shape, 3, -1)).value == pytest.approx(1)  # negative evidence is none


@pytest.mark.parametrize("shape", [(6, 6), (4, 6, 6)])
def test_a_map_that_ignores_the_images_scores_a_half(shape: tuple[int, ...]) -> None:
    """Exactly, though single mosaics do not: pairs swap the tiles."""
    source = torch.Generator().manual_seed(2)
    weights = torch.rand(shape, generator=source, dtype=torch.float64)
    context = _context(shape, 3, 1, method="saliency", network=Level(shape, weights))
    assert _focus(context).value == pytest.approx(0.5, abs=1e-12)
    (shares,) = context.run_query(Mosaics(4)).shares.values()
    assert max(abs(share - 0.5) for share in shares) > 0.01
    assert [a + b for a, b in zip(shares[::2], shares[1::2], strict=True)] == pytest.approx([1, 1])


def test_the_image_stands_in_where_no_reference_is_of_its_class() -> None:
    result = _focus(_context((6, 6), 1))
    assert result.facts["others_of_the_class"] == 0
    assert result.value == pytest.approx(6 / 8, abs=1e-12)
    result = _focus(_context((6, 6), 5, 1))  # 3 and 5 beside 1 and 1
    assert result.value == pytest.approx(8 / 10, abs=1e-12)


def test_odd_axes_have_tiles_of_unequal_size() -> None:
    """Which is no advantage, as every size is equally often on either side."""
    share = _focus(_context((5, 6), 3, 1), mosaics=400).value
    assert abs(share - 0.75) < 0.01


@pytest.mark.parametrize("signed_for", ["class", "predicted"])
@pytest.mark.parametrize(("level", "other_level", "label"), [(3, 1, 1), (1, 3, 0)])
def test_one_logit_has_two_classes(
    level: float, other_level: float, label: int, signed_for: str
) -> None:
    """Beside the other class, whose tiles count against it."""
    shape = (6, 6)
    target = {"kind": "class_score", "label": 1 if signed_for == "predicted" else label}
    context = explained(
        Level(shape, logits=1),
        _checkered(level, shape),
        {"name": "integrated_gradients", "baseline": 2.0, "steps": 4},
        target={**target, "signed_for": signed_for},
        references=torch.stack([_flat(level, shape), _flat(other_level, shape)]),
    )
    assert context.score == pytest.approx(1)
    result = _focus(context)
    assert result.value == pytest.approx(1)
    assert result.facts["others_of_the_class"] == result.facts["of_other_classes"] == 1


def test_the_class_is_that_of_the_image_and_not_of_the_mosaic() -> None:
    """A mosaic of 3, 3, -9 and -9 is of class 0; what is explained is class 1 all the same."""
    shape = (6, 6)
    network = Level(shape, weights=torch.linspace(1, 2, 36, dtype=torch.float64).view(shape))
    target = {"kind": "class_score", "label": "predicted"}
    context = _context(shape, 3, -9, network=network, target=target)
    assert _focus(context).value == pytest.approx(1)
    of_class_one = _context(shape, 3, -9, network=network, target=SCORE)
    assert _focus(of_class_one).value == pytest.approx(_focus(context).value)


def test_maps_of_mosaics_are_those_of_explaining_them() -> None:
    """By hand: the mosaics of one pair, explained as any other image."""
    network, batch = classifier(2, 3).double(), images(2, 3, 3).double()
    with torch.no_grad():
        leads = network(batch)[:, 1] - network(batch)[:, ::2].amax(dim=1)
        network.head.bias[1] -= leads.sort().values[1:].mean()
    order = leads.argsort(descending=True)
    image, references = batch[order[0]], batch[order[1:]]
    context = explained(network, image, "input_x_gradient", target=SCORE, references=references)
    (shares,) = context.run_query(Mosaics(2)).shares.values()
    tiles, places = [image, image, *references], quadrants((6, 6))
    by_hand = set()
    for own in range(4):
        for second in set(range(4)) - {own}:
            rest = sorted(set(range(4)) - {own, second})
            for others in (rest, rest[::-1]):
                arranged = [places[number] for number in (own, second, *others)]
                joined = mosaic(tiles, arranged)[None]
                attribution_map = explain(network, joined, "input_x_gradient", SCORE)[
                    "input_x_gradient"
                ].map[0]
                by_hand.add(round(evidence_share(attribution_map, arranged[:2]), 9))
    assert len(by_hand) > 6
    assert {round(share, 9) for share in shares} <= by_hand


def test_other_seeds_arrange_otherwise() -> None:
    weights = torch.arange(1.0, 37.0, dtype=torch.float64).view(6, 6)
    shares = []
    for seed in (0, 0, 1):
        context = _context((6, 6), 3, 1, 1.5, network=Level((6, 6), weights), seed=seed)
        shares.append(context.run_query(Mosaics(4)).shares)
    assert shares[0] == shares[1] != shares[2]


@pytest.mark.parametrize(
    ("levels", "options", "words"),
    [
        ((), {}, "a mosaic needs other images; pass some as references"),
        ((3, 4), {}, "all references are predicted as class 1"),
        ((1, 3), {"target": OTHER, "network": Level((6, 6), logits=1)}, "not predicted as class 0"),
        ((1, 3), {}, ""),
    ],
)
def test_missing_images_of_a_mosaic_are_named(
    levels: tuple[float, ...], options: dict[str, Any], words: str
) -> None:
    said = _reason(_context((6, 6), *levels, **options))
    assert words in said
    assert bool(said) == bool(words)


def test_dense_outputs_have_no_class_of_the_image() -> None:
    batch = images(2, 1, 3)
    target = {"kind": "pixelwise", "label": 1}
    context = explained(segmenter(), batch[0], "saliency", target=target, references=batch[1:])
    assert "this output is dense" in _reason(context)


def test_a_line_has_no_mosaic() -> None:
    assert "too thin" in _reason(_context((1, 6), 3, 1))


@pytest.mark.parametrize("seed", range(4))
def test_quantus_gives_the_same_share(seed: int) -> None:
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    source = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 8, 6, generator=source)
    places = quadrants((8, 6))
    own = torch.randperm(4, generator=source).tolist()[:2]
    metric = quantus.Focus(normalise=False, abs=False, disable_warnings=True)
    (expected,) = metric(
        model=classifier(2, 2),
        x_batch=np.zeros((1, 2, 8, 6), np.float32),
        y_batch=np.array([1]),
        a_batch=values.sum(dim=0)[None, None].numpy(),
        custom_batch=[tuple(int(number in own) for number in range(4))],
        channel_first=True,
        device="cpu",
    )
    assert evidence_share(values, [places[number] for number in own]) == pytest.approx(
        expected, abs=1e-6
    )


def test_a_trained_network_finds_its_class_in_a_mosaic() -> None:
    """Disks beside rings, each at half its size; measured: 0.92."""
    network, batch = trained(), disks(6)
    maps = explain(network, batch, "saliency", SCORE)
    shares = evaluate(
        network, batch, maps, ["focus"], SCORE, references=shapes(40, 77)[0], controls=False
    ).values()
    assert min(shares) > 0.7
    assert sum(shares) / 6 > 0.85
