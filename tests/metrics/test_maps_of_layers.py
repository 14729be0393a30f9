"""Maps on the grids of layers beside maps on the image: the others are scored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from voxplain.attribution import explain
from voxplain.errors import InputError, VoxplainWarning
from voxplain.metrics import evaluate


@pytest.mark.parametrize("rank", [2, 3])
def test_maps_on_the_image_are_scored_and_those_of_layers_named(rank: int) -> None:
    torch.manual_seed(0)
    conv = getattr(nn, f"Conv{rank}d")
    network = nn.Sequential(conv(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    image = torch.rand(1, 1, *(7,) * rank)
    network(image)
    layer = {"name": "layer_gradient_x_activation", "layers": "0"}
    maps = explain(network, image, ["saliency", "input_x_gradient", layer], 1)
    metrics = ["sparseness", "entropy"]
    with pytest.warns(VoxplainWarning, match="not scored: layer_gradient_x_activation"):
        found = evaluate(network, image, maps, metrics, 1, controls=False)
    others = {name: values for name, values in maps.items() if values.layer is None}
    expected = evaluate(network, image, others, metrics, 1, controls=False)
    assert list(found) == list(expected)
    assert {row.method for row in found} == {"saliency", "input_x_gradient"}
    alone = {name: values for name, values in maps.items() if values.layer is not None}
    with pytest.raises(InputError, match="grids of layers are not scored"):
        evaluate(network, image, alone, metrics, 1)
