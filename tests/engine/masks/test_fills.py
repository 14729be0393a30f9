"""Fills: the values of removed voxels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, segmenter
from pydantic import TypeAdapter
from torch import Tensor

from voxplain.attribution import explain
from voxplain.engine.masks import AnyFill, Boxes, Coalitions, Noise, imputation
from voxplain.engine.masks.imputation import impute
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.regions import RegionMap

every_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def _fill(value: Any) -> Any:
    return TypeAdapter(AnyFill).validate_python(value)


def _stream_input(image: Tensor, references: Tensor | None = None) -> StreamInput:
    return StreamInput(image, 0, "key", references)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", (0.0, 0.0)),
        (2, (2.0, 2.0)),
        ([1, 3], (1.0, 3.0)),
        ("minimum", (0.0, -2.0)),
        ("maximum", (4.0, 6.0)),
        ("mean", (4.0, 6.0)),
    ],
)
def test_constants(spec: Any, expected: tuple[float, float]) -> None:
    """The mean is that of the foreground: a constant corner does not count."""
    image = torch.tensor([[0.0, 0, 0, 0, 4, 4], [-2.0, -2, -2, -2, 6, 6]])
    (filled,) = _fill(spec).images(_stream_input(image), (2.0,))
    assert filled.shape == image.shape
    assert filled[:, 0].tolist() == list(expected)


def test_blur_keeps_a_constant_and_the_axes_of_one_voxel() -> None:
    blur = _fill("blur")
    assert_close(
        blur.images(_stream_input(torch.full((1, 8, 8), 3.0)), (4.0, 4.0))[0],
        torch.full((1, 8, 8), 3.0),
    )
    image = images(2, 1, 1, 8)[0]
    (flat,) = blur.images(_stream_input(image), (4.0, 4.0))
    (solid,) = blur.images(_stream_input(image[:, None]), (1.0, 4.0, 4.0))
    assert torch.equal(flat, solid[:, 0])
    assert float(flat.std()) < 0.5 * float(image.std())


def test_fills_by_cases_average_at_most_the_stated_number() -> None:
    fill = _fill({"kind": "case", "references": 2})
    assert len(fill.images(_stream_input(torch.zeros(1, 4), torch.ones(5, 1, 4)), (1.0,))) == 2
    assert (fill.runs(None), fill.runs(1)) == (2, 1)
    with pytest.raises(ConfigError, match="parts of the image by those of other cases"):
        fill.images(_stream_input(torch.zeros(1, 4)), (1.0,))


def test_a_misspelled_fill_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="blur"):
        explain(classifier(), images(), {"name": "occlusion", "fill": "blurr"}, 1)


def _solved_densely(image: Tensor, removed: Tensor, spacing: Sequence[float]) -> Tensor:
    """One equation per removed voxel, written out and solved at once."""
    places = [tuple(place) for place in removed.nonzero().tolist()]
    number = {place: row for row, place in enumerate(places)}
    system = torch.zeros(len(places), len(places), dtype=torch.float64)
    right_side = torch.zeros(len(places), dtype=torch.float64)
    for place, row in number.items():
        for offset in itertools.product((-1, 0, 1), repeat=image.ndim):
            other = tuple(a + b for a, b in zip(place, offset, strict=True))
            inside = all(0 <= a < side for a, side in zip(other, image.shape, strict=True))
            if not any(offset) or not inside:
                continue
            weight = 1 / sum((step * a) ** 2 for step, a in zip(offset, spacing, strict=True))
            system[row, row] += weight
            if other in number:
                system[row, number[other]] -= weight
            else:
                right_side[row] += weight * float(image[other])
    result = image.clone()
    result[removed] = torch.linalg.solve(system, right_side)
    return result


@every_rank
@pytest.mark.parametrize("spacing", [None, (5.0, 1.0, 0.7)], ids=["unknown", "anisotropic"])
def test_imputation_solves_the_linear_system(
    rank: int, spacing: tuple[float, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every channel with voxels of its own removed; up to most of the image, and all borders."""
    torch.manual_seed(rank)
    sides = spacing[:rank] if spacing else None
    for share in (0.1, 0.5, 0.9):
        image = torch.randn(3, *(6,) * rank, dtype=torch.float64) * 50 + 1000
        removed = torch.rand(image.shape) < share
        removed.view(3, -1)[:, -1], removed.view(3, -1)[:, 0] = False, True
        pairs = zip(image, removed, strict=True)
        expected = torch.stack([_solved_densely(*pair, sides or (2.0,) * rank) for pair in pairs])
        result = impute(image, removed, sides)
        assert torch.equal(result[~removed], image[~removed])
        assert float((result - expected).abs().max()) < 1e-3 * 50
        with monkeypatch.context() as patch:
            patch.setattr(imputation, "_TOLERANCE", 1e-10)
            assert_close(impute(image, removed, sides), expected, 1e-5)


@every_rank
def test_cubes_of_any_size_are_imputed_alike(rank: int) -> None:
    image, removed = torch.randn(2, *(7,) * rank), torch.rand(2, *(7,) * rank) < 0.5
    unknown = impute(image, removed)
    for size in (1.0, 0.7, 3.0):
        assert torch.equal(impute(image, removed, (size,) * rank), unknown)


def test_thick_slices_count_less_than_neighbors_in_the_plane() -> None:
    """One voxel of 5 x 1 x 1 mm is missing: the other slices are 1, its own is 0."""
    image = torch.ones(1, 3, 3, 3, dtype=torch.float64)
    image[0, 1] = 0
    removed = torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    removed[0, 1, 1, 1] = True
    across = 2 * (1 / 25 + 4 / 26 + 4 / 27)
    within = 4 / 1 + 4 / 2
    result = float(impute(image, removed, (5.0, 1.0, 1.0))[0, 1, 1, 1])
    assert result == pytest.approx(across / (across + within), rel=1e-9)
    assert result < 0.3 * float(impute(image, removed)[0, 1, 1, 1])


def test_fills_use_the_spacing_of_the_image() -> None:
    """Maps of methods follow it, noisy copies of the image included."""
    array, network = images(2)[0], classifier(2)
    occlusion = {"name": "occlusion", "window": 3, "fill": {"kind": "noise", "sigma": 0}}
    noisy = {"name": "smoothgrad", "of": occlusion, "samples": 2, "label": "noisy"}

    def maps(*spacing: float) -> list[Tensor]:
        image = Image.from_array(array, spacing)
        return [result.map for result in explain(network, image, [occlusion, noisy], 1).values()]

    for thin, thick, cubes in zip(maps(1, 1), maps(5, 1), maps(5, 5), strict=True):
        assert torch.equal(thin, cubes)
        assert not torch.allclose(thin, thick, rtol=1e-3)


def test_imputation_continues_a_linear_ramp() -> None:
    """A ramp is its own weighted mean of neighbors, so a hole in it closes without a trace."""
    ramp = torch.arange(16.0, dtype=torch.float64).expand(1, 16, 16).contiguous()
    removed = torch.zeros(1, 16, 16, dtype=torch.bool)
    removed[:, 3:11, 4:13] = True
    assert_close(impute(torch.where(removed, 0, ramp), removed), ramp, 1e-5)


def test_one_slice_is_imputed_as_the_slice() -> None:
    image, removed = torch.randn(1, 9, 9), torch.rand(1, 9, 9) < 0.5
    flat, solid = impute(image, removed), impute(image[:, None], removed[:, None])
    assert torch.equal(flat, solid[:, 0])


def _painted(masks: Any, fill: Noise, image: Tensor) -> Tensor:
    (painter,) = fill.painters(_stream_input(image), masks)
    return painter.painted(range(len(masks))).clone()


@every_rank
def test_noise_fills_boxes_regions_and_channels(rank: int) -> None:
    shape, image = (8,) * rank, torch.randn(2, *(8,) * rank).cumsum(-1)
    box = tuple(slice(2, 6) for _ in shape)
    removed = torch.zeros(shape, dtype=torch.bool)
    removed[box] = True
    design = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    regions = RegionMap((~removed).long())
    per_channel = RegionMap(torch.arange(2).view(2, *(1,) * rank).expand(2, *shape).contiguous())
    noiseless, fill = Noise(sigma=0), Noise()
    expected = impute(image, removed.expand_as(image))
    of_box = _painted(Boxes((box,), shape, (4.0,) * rank), noiseless, image)[0]
    of_region, empty = _painted(Coalitions(regions, design, shape), noiseless, image)
    assert_close(of_box, expected, 1e-4)
    assert_close(of_region, expected, 1e-4)
    assert float(empty.std(dim=tuple(range(1, rank + 1))).max()) < 1e-5  # its mean, everywhere
    first, _ = _painted(Coalitions(per_channel, design, shape), noiseless, image)
    assert torch.equal(first[1], image[1])
    assert torch.equal(first[0], empty[0])
    noisy = _painted(Boxes((box,), shape, (4.0,) * rank), fill, image)[0]
    assert torch.equal(noisy[:, ~removed], image[:, ~removed])
    assert 0 < float((noisy - expected)[:, removed].std()) < 0.1 * float(image.std())


FILLS = ("constant", "mean", "blur", "noise", {"kind": "case", "references": 1})
METHODS: tuple[dict[str, Any], ...] = (
    {"name": "occlusion", "window": 3},
    {"name": "feature_ablation", "regions": {"kind": "blocks", "size": 2}},
    {"name": "feature_ablation", "regions": "channels", "label": "modalities"},
    {"name": "rise", "samples": 5, "cells": 3},
    {"name": "score_cam", "weighting": "softmax"},
)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_every_fill_for_every_mask(rank: int, fill: Any) -> None:
    """Alone and in a batch, whole and in one window, the same; and the fill has an effect."""
    network, shown = classifier(rank, 2).double(), images(rank, 2, 2).double()
    references = images(rank, 2, 3).double()[2:]
    methods = [{**method, "fill": fill} for method in METHODS]
    both = explain(network, shown, methods, 1, references=references)
    alone = explain(network, shown[1:], methods, 1, references=references)
    other = explain(
        network, shown, [{**method, "fill": 3.0} for method in METHODS], 1, references=references
    )
    for key, attribution in both.items():
        assert_close(attribution.map[1], alone[key].map[0], 1e-11, key)
        assert not torch.allclose(attribution.map, other[key].map), key


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_every_fill_in_windows(fill: Any) -> None:
    network, shown = segmenter(2, 2).double(), images(2, 2, 1, 10).double()
    references = images(2, 2, 2, 10).double()[1:]
    model = Model(network, window={"size": 8, "halo": 2, "overlap": 0.5})
    methods = [{**method, "fill": fill} for method in METHODS[:4]]
    target = {"kind": "volume", "label": 1}
    windowed = explain(model, shown, methods, target, references=references)
    whole = explain(network, shown, methods, target, references=references)
    for key, attribution in whole.items():
        assert_close(windowed[key].map, attribution.map, 1e-9, key)


def test_the_same_seed_gives_the_same_noise() -> None:
    method = {"name": "occlusion", "fill": "noise"}
    first, again, other = (
        explain(classifier(2), images(2), method, 1, seed=seed)["occlusion"].map
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
