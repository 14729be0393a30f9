"""Dropout that is called as a function is found and drawn as that of layers is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.concepts.uncertainty import uncertainty
from voxplain.engine.variants.dropout import dropout_draw, dropout_places
from voxplain.errors import ModelError
from voxplain.image import Image
from voxplain.models.model import Model

P = 0.3


class Readout(nn.Module):
    """Sum of w * dropout(x), by a layer, a function, or half by each."""

    def __init__(self, weights: Tensor, kind: str) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.kind = kind
        self.layer = nn.Dropout(P) if kind != "function" else None

    def forward(self, image: Tensor) -> Tensor:
        values = self.weights * image.flatten(1)
        if self.kind == "layer":
            return self.layer(values).sum(1, keepdim=True)
        if self.kind == "function":
            return functional.dropout(values, P, self.training).sum(1, keepdim=True)
        first, second = values.chunk(2, dim=1)
        second = functional.dropout(second, p=P, training=self.training)
        return (self.layer(first).sum(1) + second.sum(1))[:, None]


def readout(kind: str) -> tuple[Model, Tensor]:
    weights, image = torch.randn(16).double(), torch.randn(1, 1, 4, 4).double()
    return Model(Readout(weights, kind).eval()), image


@pytest.mark.parametrize(
    ("kind", "layers", "calls"), [("layer", 1, 0), ("function", 0, 1), ("both", 1, 1)]
)
def test_variance_of_a_linear_readout(kind: str, layers: int, calls: int) -> None:
    """Var(sum w x m / (1 - p)) = p / (1 - p) sum (w x)^2, around the sum without dropout."""
    model, image = readout(kind)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    found = dropout_places(model, image)
    assert (len(found.layers), found.calls) == (layers, calls)
    with torch.no_grad():
        drawn = torch.stack([dropout_draw(model, "0", n)(image)[0, 0] for n in range(1500)])
        again = torch.stack([dropout_draw(model, "0", n)(image)[0, 0] for n in range(5)])
        rest = model(image)[0, 0]
    assert torch.equal(drawn[:5], again)
    variance = (
        P / (1 - P) * float((model.network.weights.detach() * image.flatten()).square().sum())
    )
    assert float(drawn.var()) == pytest.approx(variance, rel=0.12)
    assert float(drawn.mean()) == pytest.approx(float(rest), abs=4 * (variance / 1500) ** 0.5)
    assert all(torch.equal(v, before[name]) for name, v in model.network.state_dict().items())
    assert not model.network.training
    assert "forward" not in vars(model.network)
    with torch.no_grad():
        assert torch.equal(model(image)[0, 0], rest)


def dropped_by(function: Callable[..., Tensor], dense: Tensor) -> Tensor:
    class Calls(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return function(image, P, self.training)

    return dropout_draw(Model(Calls().eval()), "0", 0)(dense)


@pytest.mark.parametrize("rank", [2, 3])
def test_functions_of_channels_drop_whole_channels(rank: int) -> None:
    dense = torch.ones(2, 64, *(5,) * rank).double()
    dropped = dropped_by(getattr(functional, f"dropout{rank}d"), dense)
    assert float(dropped.flatten(2).std(dim=2).max()) == 0
    assert set(dropped.unique().tolist()) == {0.0, 1 / (1 - P)}
    assert torch.equal(dropped[0], dropped[1])
    single = dropped_by(functional.dropout, dense)
    assert float(single.flatten(2).std(dim=2).min()) > 0
    assert torch.equal(single[0], single[1])
    flat = dropped_by(functional.dropout, torch.ones(1, 8, 7, 6).double())
    solid = dropped_by(functional.dropout, torch.ones(1, 8, 1, 7, 6).double())
    assert torch.equal(flat, solid[:, :, 0])


def test_threads_do_not_meet() -> None:
    model, image = readout("both")
    drawn = [dropout_draw(model, "0", number) for number in range(8)]
    with torch.no_grad():
        alone = [float(each(image)) for each in drawn]

    def call(number: int) -> float:
        with torch.no_grad():
            return float(drawn[number % 8](image))

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(call, range(64)))
    assert together == alone * 8


class Dense(nn.Module):
    """A segmenter whose only dropout is a function with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.head = p, nn.Conv2d(1, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return functional.dropout2d(self.head(image), self.p, self.training)


def test_uncertainty_states_the_places_and_refuses_a_network_without() -> None:
    image = Image.from_array(torch.rand(1, 8, 8))
    found = uncertainty(Dense(0.5).eval(), image, "dropout", samples=6)
    assert found.record.parameters["dropout_layers"] == 0
    assert found.record.parameters["dropout_calls"] == 1
    assert float(found.epistemic.max()) > 1e-3
    with pytest.raises(ModelError, match=r"no dropout layer .* and calls no dropout"):
        uncertainty(Dense(0.0).eval(), image, "dropout", samples=2)
