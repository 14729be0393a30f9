"""Sampled activations: where they lie, what they stand for, and on what they do not depend."""

from __future__ import annotations

import pytest
import torch
from planted import (
    Pointwise,
    Strided,
    backwards,
    bright_along,
    label_concept,
    noise_cohort,
    one_slice,
)

from voxplain.concepts.activation_sample import ActivationSample, sample_activations
from voxplain.concepts.concept import Concept
from voxplain.concepts.places import cell_points, values_at
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import InputError
from voxplain.models.model import Model

LABELS = bright_along(torch.tensor([1.0, 1.0, 0.0]), above=1.0)


def cohort(shape: tuple[int, ...] = (12, 10), count: int = 3):  # type: ignore[no-untyped-def]
    return noise_cohort(count, 3, shape, LABELS)


def same(first: ActivationSample, second: ActivationSample) -> None:
    assert torch.allclose(first.values, second.values, atol=1e-5)
    assert torch.equal(first.concepts, second.concepts)
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.owners, second.owners)
    assert first.cases == second.cases


def test_weights_say_how_many_places_a_vector_stands_for() -> None:
    cases = cohort((20, 20))
    sample = sample_activations(
        Pointwise(torch.ones(2, 3)), cases, ["layer"], [label_concept()], per_case=40,
        places="voxels",
    )["layer"]  # fmt: skip
    for number, case in enumerate(cases):
        own = sample.owners == number
        assert int(own.sum()) == 40
        assert case.labels is not None
        share = (sample.concepts[own, 0] * sample.weights[own]).sum()
        assert torch.isclose(share, case.labels.float().mean(), atol=1e-5)
        assert int(sample.concepts[own, 0].sum()) == 20


@pytest.mark.parametrize("rank", [2, 3])
def test_voxels_get_what_the_layer_has_there_on_the_image(rank: int) -> None:
    torch.manual_seed(0)
    network, cases = Strided(rank), cohort((12, 10, 7)[:rank], 1)
    (case,) = cases
    tap = Tap("second")
    seen = observe(Context.open(network, case.image), (tap,))
    every = torch.arange(case.image.data[0].numel())
    whole = seen.on_image(tap).flatten(1).T
    sample = sample_activations(network, cases, ["second"], per_case=10**6, places="voxels")
    order = sample["second"].values.sum(dim=1).argsort()
    assert torch.allclose(
        sample["second"].values[order], whole[whole.sum(dim=1).argsort()], atol=1e-5
    )
    assert len(every) == len(order)


def test_windows_that_are_the_whole_image_change_nothing() -> None:
    torch.manual_seed(0)
    network = Strided()
    windowed = Model(network, window={"size": [12, 10], "overlap": 0.5})
    for places in ("voxels", "cells"):
        whole, parts = (
            sample_activations(each, cohort(), ["first"], [label_concept()], places=places)
            for each in (network, windowed)
        )
        same(whole["first"], parts["first"])


def test_cells_of_windows_lie_where_their_windows_do() -> None:
    network = Pointwise(torch.ones(2, 3), dense=True)
    model = Model(network, window={"size": [8, 8], "overlap": 0.5})
    (case,) = cohort((12, 10), 1)
    context, tap = Context.open(model, case.image), Tap("layer")
    seen = observe(context, (tap,))
    cells = torch.arange(seen[tap][0].numel())
    points = cell_points(context.layers, tap, cells)
    # The layer is the image itself, so that each cell has the intensity of its voxel.
    assert torch.allclose(values_at(case.image.data, points), seen[tap].flatten(1).T, atol=1e-5)


def test_concepts_are_read_where_the_cells_lie() -> None:
    torch.manual_seed(0)
    network = Strided()
    (case,) = cohort((16, 16), 1)
    marked = Concept("marked", "mask", "explicit", "made", lambda _: _mask(case.image.grid.shape))
    sample = sample_activations(network, noise_cohort(1, 3, (16, 16)), ["second"], [marked])
    # Cell i of two padded convolutions of stride 2 lies at voxel 4 i.
    assert int(sample["second"].concepts.sum()) == 1


def _mask(shape: tuple[int, ...]) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[8, 4] = mask[9, 5] = mask[6, 6] = True
    return mask


def test_the_order_of_cases_changes_nothing() -> None:
    torch.manual_seed(0)
    network = Strided()
    first, second = (
        sample_activations(network, cases, ["first"], [label_concept()], per_case=8)["first"]
        for cases in (cohort(), backwards(cohort()))
    )
    same(first, second)


def test_a_volume_of_one_slice_is_the_image() -> None:
    torch.manual_seed(0)
    flat, deep = Strided(2), Strided(3)
    for name in ("first", "second"):
        weight = flat.get_submodule(name).weight.data
        deep.get_submodule(name).weight.data.zero_()
        deep.get_submodule(name).weight.data[..., 1] = weight
        deep.get_submodule(name).bias.data = flat.get_submodule(name).bias.data
    cases = cohort()
    image = sample_activations(flat, cases, ["second"], [label_concept()], per_case=4)
    volume = sample_activations(deep, one_slice(cases), ["second"], [label_concept()], per_case=4)
    same(image["second"], volume["second"])


def test_a_layer_without_places_has_one_vector_per_image() -> None:
    torch.manual_seed(0)
    sample = sample_activations(Strided(), cohort(), ["head"], [label_concept()])["head"]
    assert sample.values.shape == (3, 2)
    assert sample.concepts.tolist() == [[1.0]] * 3


def test_a_concept_on_another_grid_is_refused() -> None:
    wrong = Concept("wrong", "mask", "explicit", "made", lambda _: torch.ones(3, 3).bool())
    with pytest.raises(InputError, match=r"'wrong' of case 'case0' has the shape \(3, 3\)"):
        sample_activations(Pointwise(torch.ones(2, 3)), cohort(), ["layer"], [wrong])
