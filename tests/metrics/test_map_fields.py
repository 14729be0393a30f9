"""Maps of every kind as metrics see them: on the grid of the network, with what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from harsh import harsh_classifier
from metric_cases import metric_context
from torch import Tensor

from voxplain.attribution import explain
from voxplain.image import Grid, Image
from voxplain.metrics import ExternalMap, MapField
from voxplain.preprocess import Spacing, apply

SHAPE = (8, 10, 6)
METHODS: list[Any] = [
    "saliency",
    {"name": "integrated_gradients", "steps": 4},
    {"name": "deconvolution", "abs": True},
    {"name": "grad_cam", "layer": "act2"},
]
MASS = "integrated_gradients"


def scan() -> Image:
    """On cells of 2 x 1 x 3 mm, resampled to 1.5 mm for the network."""
    draws = torch.Generator().manual_seed(0)
    values = torch.rand(2, *SHAPE, generator=draws, dtype=torch.float64)
    return apply(Image(values, Grid(SHAPE, np.diag([2.0, 1, 3, 1]))), [Spacing(size=1.5)])


def fields(maps: Any, image: Image) -> dict[str, MapField]:
    return metric_context(harsh_classifier(3), image, maps).fields


def total(values: Tensor) -> float:
    return float(values.double().sum())


def test_maps_on_the_scan_come_to_the_network_as_their_method_says() -> None:
    """A map that shares out the score keeps its sum, and the others keep their values."""
    image = scan()
    maps = explain(harsh_classifier(3), image, METHODS, 1)
    live = fields(maps, image)
    moved = fields({name: replace(m, on_input=None) for name, m in maps.items()}, image)
    for name, attribution in maps.items():
        properties = attribution.method.properties()
        for field in (live[name], moved[name]):
            assert field.values.shape == image.grid.shape
            assert field.sign == properties.sign
            assert field.share == ("per unit" not in properties.units)
        carried = image.carry(attribution.map, properties.resampling)
        torch.testing.assert_close(moved[name].map, carried, check_dtype=False)
    assert total(moved[MASS].map) == pytest.approx(total(maps[MASS].map), rel=1e-4)
    assert live[MASS].completeness == moved[MASS].completeness is not None
    assert live["deconvolution"].sign == "absolute"
    modes = {attribution.method.properties().resampling for attribution in maps.values()}
    assert modes == {"value", "mass"}


@pytest.mark.parametrize("mode", ["value", "mass"])
def test_maps_from_elsewhere_say_how_they_are_resampled(mode: Any) -> None:
    image = scan()
    draws = torch.Generator().manual_seed(1)
    values = torch.rand(SHAPE, generator=draws)
    external = ExternalMap(values, "positive", False, "scan", mode, completeness=0.25)
    field = fields({"m": external}, image)["m"]
    np.testing.assert_allclose(field.map, image.carry(values[None], mode), rtol=1e-6)
    assert (field.sign, field.share, field.completeness) == ("positive", False, 0.25)
    plain = fields({"m": values}, image)["m"]
    np.testing.assert_allclose(plain.map, image.carry(values[None], "value"), rtol=1e-6)
    ready = torch.rand(image.grid.shape, generator=draws)
    assert torch.equal(fields({"m": ready}, image)["m"].map[0], ready)
