"""The books close behind every family of functions, and the audit names one where they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.attribution.audit import audit
from voxplain.engine.rules.excitation import shares

Function = Callable[[Tensor], Tensor]
AXES = {2: (2, 3), 3: (2, 3, 4)}


def _of(name: str, rank: int) -> Any:
    return getattr(nn, f"{name}{rank}d")


class Squeezed(nn.Module):
    """A squeeze-and-excitation block."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.down, self.up, self.rank = nn.Linear(4, 2), nn.Linear(2, 4), rank

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(self.down(x.mean(AXES[self.rank])).relu()))
        return x * gate.view(*gate.shape, *(1,) * self.rank)


class Attending(nn.Module):
    """Attention over all positions, with a skip."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True) if own else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if self.layer is None:
            mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        else:
            mixed = self.layer(tokens, tokens, tokens, need_weights=False)[0]
        return mixed.transpose(1, 2).reshape(x.shape) + x


def _interpolated(mode: str, **more: Any) -> Callable[[int], Function]:
    def made(rank: int) -> Function:
        kind = "trilinear" if mode == "bilinear" and rank == 3 else mode
        return lambda x: F.interpolate(x, scale_factor=1.7, mode=kind, **more)

    return made


def _fixed(function: Function) -> Callable[[int], Function]:
    return lambda _: function


def _mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


FAMILIES: dict[str, Callable[[int], Function]] = {
    "stride": lambda rank: _of("Conv", rank)(4, 4, 3, stride=2),
    "reflected": lambda rank: _of("Conv", rank)(4, 4, 3, padding=1, padding_mode="reflect"),
    "replicated": lambda rank: _of("Conv", rank)(4, 4, 3, padding=1, padding_mode="replicate"),
    "circular": lambda rank: _of("Conv", rank)(4, 4, 3, padding=1, padding_mode="circular"),
    "dilated groups": lambda rank: _of("Conv", rank)(4, 4, 3, dilation=2, groups=2, padding=2),
    "transposed": lambda rank: _of("ConvTranspose", rank)(4, 4, 3, stride=2, output_padding=1),
    "mean pool with zeros": lambda rank: _of("AvgPool", rank)(3, 2, 1),
    "mean pool without": lambda rank: _of("AvgPool", rank)(3, 2, 1, count_include_pad=False),
    "mean pool ceil": lambda rank: _of("AvgPool", rank)(2, 2, ceil_mode=True),
    "mean pool divisor": lambda rank: _of("AvgPool", rank)(2, 2, divisor_override=3),
    "adaptive mean": lambda rank: _of("AdaptiveAvgPool", rank)((3, 4, 2)[:rank]),
    "max pool ceil": lambda rank: _of("MaxPool", rank)(2, 2, ceil_mode=True),
    "max pool padded": lambda rank: _of("MaxPool", rank)(3, 2, 1),
    "max pool dilated": lambda rank: _of("MaxPool", rank)(2, 1, dilation=2),
    "adaptive max": lambda rank: _of("AdaptiveMaxPool", rank)((3, 4, 2)[:rank]),
    "nearest": _interpolated("nearest"),
    "nearest-exact": _interpolated("nearest-exact"),
    "linear": _interpolated("bilinear"),
    "linear aligned": _interpolated("bilinear", align_corners=True),
    "area": _interpolated("area"),
    "instance norm": lambda rank: _of("InstanceNorm", rank)(4, affine=True),
    "instance norm tracked": lambda rank: _of("InstanceNorm", rank)(4, track_running_stats=True),
    "group norm": _fixed(nn.GroupNorm(2, 4)),
    "batch norm": lambda rank: _of("BatchNorm", rank)(4),
    "layer norm": lambda rank: nn.LayerNorm((9, 7, 6)[:rank]),
    "rms norm": lambda rank: nn.RMSNorm((9, 7, 6)[rank - 1]),
    "local response": _fixed(nn.LocalResponseNorm(3)),
    "normalized": _fixed(lambda x: F.normalize(x, dim=1)),
    "cat": _fixed(lambda x: torch.cat([x, 2 * x], 2)),
    "constant pad": _fixed(lambda x: F.pad(x, (1, 1, 1, 1), value=0.5)),
    "slice": _fixed(lambda x: x[:, :, 1:-1:2]),
    "chunk": _fixed(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "roll": _fixed(lambda x: x.roll(2, 2)),
    "expand": _fixed(lambda x: _mean(x).expand_as(x) + x),
    "mean over an axis": _fixed(lambda x: x.mean(2, keepdim=True) + x),
    "sum over channels": _fixed(lambda x: 0.1 * x.sum(1, keepdim=True)),
    "cumsum": _fixed(lambda x: x.cumsum(2)),
    "softmax": _fixed(lambda x: x.softmax(1)),
    "log softmax": _fixed(lambda x: x.log_softmax(1)),
    "dropout": _fixed(nn.Dropout(0.5)),
    "gate": _fixed(lambda x: x * torch.sigmoid(_mean(x))),
    "gate of both signs": _fixed(lambda x: x * torch.tanh(_mean(x) - 0.2)),
    "squeeze": Squeezed,
    "attention": _fixed(Attending(False)),
    "attention layer": _fixed(Attending(True)),
    "swish": _fixed(nn.SiLU()),
    "swish by hand": _fixed(lambda x: x * torch.sigmoid(x)),
    "gelu": _fixed(nn.GELU()),
    "elu": _fixed(nn.ELU()),
    "prelu": _fixed(nn.PReLU()),
    "hardswish": _fixed(nn.Hardswish()),
    "softplus": _fixed(nn.Softplus()),
    "glu": _fixed(lambda x: F.glu(x, 1).repeat(1, 2, *(1,) * (x.ndim - 2))),
    "sigmoid": _fixed(nn.Sigmoid()),
    "clamp": _fixed(lambda x: x.clamp(0.1, 0.4)),
    "negative factor": _fixed(lambda x: -0.7 * x),
    "quotient": _fixed(lambda x: x / (1 + x.abs().mean((1, 2), keepdim=True))),
    "difference": _fixed(lambda x: x - 0.5 * x.mean(1, keepdim=True)),
    "constant": _fixed(lambda x: x + 0.3),
    "in place": _fixed(lambda x: x.clone().add_(x.flip(3))),
    "maximum": _fixed(lambda x: torch.maximum(x, 0.3 * x.flip(2))),
    "where": _fixed(lambda x: torch.where(x > 0.2, x, 0.1 * x)),
    "lerp": _fixed(lambda x: torch.lerp(x, x.flip(2), 0.3)),
}
TWO_AXES: dict[str, Function] = {
    "pixel shuffle": nn.PixelShuffle(2),
    "unfold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "antialiased": lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
}


class Around(nn.Module):
    """A function between a convolution and a head."""

    def __init__(self, function: Function, rank: int) -> None:
        super().__init__()
        self.first, self.function = _of("Conv", rank)(1, 4, 3, padding=1), function
        self.pool, self.head = _of("AdaptiveAvgPool", rank)(2), nn.LazyLinear(3)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pool(self.function(self.first(image).relu())).flatten(1))


def _network(name: str, rank: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    function = TWO_AXES[name] if name in TWO_AXES else FAMILIES[name](rank)
    network = Around(function, rank).eval()
    image = torch.rand(1, 1, *(9, 7, 6)[:rank], generator=torch.Generator().manual_seed(1))
    network.float()(image)  # the head takes its size
    return network.double(), image.double()


@pytest.mark.parametrize(
    ("name", "rank"),
    [*((name, rank) for rank in (2, 3) for name in FAMILIES), *((name, 2) for name in TWO_AXES)],
)
def test_books_close_behind_every_function(name: str, rank: int) -> None:
    """Relevance, absorbed or on the map, is the score; a mass of 1 is on the map or lost."""
    network, image = _network(name, rank)
    methods: list[Any] = [
        {"name": "lrp"},
        {"name": "lrp", "composite": "epsilon", "label": "epsilon"},
        {"name": "lrp", "composite": "alpha2_beta1", "label": "alpha"},
        "excitation_backprop",
    ]
    for key, found in explain(network, image, methods, 1).items():
        books = dict(found.stats.streams[0]["conservation"])
        whole = books.pop("score", 1.0)
        assert sum(books.values()) == pytest.approx(whole, rel=1e-6), key
        assert books["map"] == pytest.approx(float(found.map.double().sum()), abs=1e-6), key


@pytest.mark.parametrize("rank", [2, 3])
def test_the_audit_names_the_function_that_loses(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, image = _network("mean pool with zeros", rank)
    whole = audit(network, image, ["excitation", "lrp"])
    assert not any("in no book" in text for texts in whole.remarks.values() for text in texts)

    class Nowhere:
        def add(self, probability: Tensor) -> None:
            """Forgets what is lost."""

    def leaking(value: Tensor, operand: Tensor, saved: Tensor, linear: Any, _: Any) -> Tensor:
        return through_sums(value, operand, saved - 10, linear, Nowhere())  # type: ignore[arg-type]

    through_sums = shares.through_sums
    monkeypatch.setattr(shares, "through_sums", leaking)
    found = audit(network, image, ["excitation", "lrp"])
    assert not found.covered("excitation")
    (said,) = [text for text in found.remarks["excitation"] if "in no book" in text]
    assert f"went missing at adaptive_avg_pool{rank}d in Around" in said
    assert "conv" not in said
    assert found.covered("lrp")


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    "name", ["score_cam", "ablation_cam", "layer_feature_ablation", "grad_cam"]
)
def test_a_layer_that_is_called_twice_is_told(name: str, rank: int) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = _of("Conv", rank)(1, 1, 3, padding=1)
            self.head = nn.Linear(1, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(_mean(self.layer(self.layer(image).relu())).flatten(1))

    torch.manual_seed(0)
    network, image = Twice().eval(), torch.rand(1, 1, *(6, 5, 4)[:rank])
    key = "layers" if name == "layer_feature_ablation" else "layer"
    (found,) = explain(network, image, {"name": name, key: "layer"}, 1).values()
    said = "layer 'layer' is called 2 times; its last call is taken, layer#0 would be the first"
    assert said in found.stats.warnings
    (first,) = explain(network, image, {"name": name, key: "layer#0"}, 1).values()
    assert not any("is called" in text for text in first.stats.warnings)
