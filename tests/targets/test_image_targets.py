"""Targets of networks that give an image back: weights, scores and maps in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, images
from torch import Tensor, nn

from voxplain.attribution import explain, predict
from voxplain.errors import ConfigError, TargetError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Intensity, ReconstructionError, parse_target

every_rank = pytest.mark.parametrize("rank", [2, 3])


def denoiser(rank: int, channels: int = 2) -> nn.Module:
    torch.manual_seed(0)
    conv = getattr(nn, f"Conv{rank}d")
    layers = [conv(1, 3, 3, padding=1), nn.Softplus(), conv(3, channels, 3, padding=1)]
    return nn.Sequential(*layers).double()


def scan(rank: int, batch: int = 1) -> Tensor:
    return images(rank, 1, batch).double()


@every_rank
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("channels", [1, 2])
def test_intensity_is_the_sum_or_mean_of_a_channel(
    rank: int, reduction: str, channels: int
) -> None:
    network, batch = denoiser(rank, channels), scan(rank, 2)
    channel = channels - 1
    mask = torch.zeros(6, 6, 6)[(0,) * (3 - rank)].bool()
    mask[2:5] = True
    regions: list[tuple[dict[str, Any], Tensor]] = [
        ({}, torch.ones_like(mask)),
        ({"mask": mask}, mask),
        ({"mask": mask.long() * 7, "value": 7}, mask),
        ({"box": [(2, 5)] + [(0, 6)] * (rank - 1)}, mask),
    ]
    output = network(batch)[:, channel]
    for region, inside in regions:
        target = {"kind": "intensity", "channel": channel, "reduction": reduction, **region}
        inner = output[:, inside]
        expected = inner.sum(dim=1) if reduction == "sum" else inner.mean(dim=1)
        found = explain(network, batch, "saliency", target)["saliency"]
        assert_close(torch.tensor(found.stats.scores, dtype=torch.float64), expected.detach(), 1e-9)
        leaf = batch.clone().requires_grad_(True)
        values = network(leaf)[:, channel][:, inside]
        (gradient,) = torch.autograd.grad(
            values.sum() / (1 if reduction == "sum" else int(inside.sum())), leaf
        )
        assert_close(found.map, gradient, 1e-9)
        words = found.target[0].in_words
        assert words.startswith(f"the {reduction} of output channel {channel} over the ")
        assert "class" not in words


@every_rank
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
def test_reconstruction_error_is_the_squared_difference(
    rank: int, reduction: str, window: Any
) -> None:
    network, batch = denoiser(rank), scan(rank, 2)
    reference = scan(rank, 4)[2:, 0]
    model = Model(network, window=window)
    inside = torch.zeros(reference.shape[1:]).bool()
    inside[1:4] = True
    target = {
        "kind": "reconstruction_error",
        "channel": 1,
        "reference": reference,
        "reduction": reduction,
        "mask": inside,
    }
    box = {"name": "occlusion", "window": 2, "stride": 2, "fill": 0.0}
    found = explain(model, batch, ["saliency", box], target)
    squared = (model.output(batch)[:, 1] - reference).square()[:, inside]
    expected = squared.sum(dim=1) if reduction == "sum" else squared.mean(dim=1)
    assert_close(torch.tensor(found["saliency"].stats.scores, dtype=torch.float64), expected, 1e-9)
    without = batch.clone()
    without[(..., *(slice(0, 2) for _ in range(rank)))] = 0
    changed = (model.output(without)[:, 1] - reference).square()[:, inside]
    after = changed.sum(dim=1) if reduction == "sum" else changed.mean(dim=1)
    corner = found["occlusion"].map[(slice(None), 0, *(0,) * rank)]
    assert_close(corner, expected - after, 1e-5)
    if window is None:
        leaf = batch.clone().requires_grad_(True)
        error = (network(leaf)[:, 1] - reference).square()[:, inside]
        total = error.sum() if reduction == "sum" else error.mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        assert_close(found["saliency"].map, gradient, 1e-8)
    words = found["saliency"].target[0].in_words
    assert "squared difference of output channel 1 from the reference over the" in words


@every_rank
def test_paths_over_an_error_are_complete(rank: int) -> None:
    network, batch = denoiser(rank), scan(rank)
    target = ReconstructionError(reference=scan(rank, 3)[2, 0])
    methods = [{"name": "integrated_gradients", "steps": 32}, "deep_lift"]
    found = explain(network, batch, methods, target)
    for attribution in found.values():
        assert attribution.stats.completeness is not None
        assert attribution.stats.completeness[0] < 1e-4


def test_a_small_error_of_large_intensities_is_not_lost() -> None:
    """In float32, where squares of a thousand have steps of 0.06."""
    reference = torch.full((1, 16, 16), 1000.0)
    output = reference + 0.25
    field = ReconstructionError(reference=reference[0]).bind(output[None])
    assert float(field.score(output[None])) == pytest.approx(0.0625, rel=0.02)


def test_numbers_of_a_regression() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    batch = images(2, 1, 2, 4).double()
    found = explain(network, batch, "saliency", {"kind": "intensity", "channel": 2})["saliency"]
    assert_close(
        torch.tensor(found.stats.scores, dtype=torch.float64), network(batch)[:, 2].detach(), 1e-12
    )
    assert found.target[0].in_words == "output channel 2"
    wanted = torch.tensor([1.0, 2.0])
    target = ReconstructionError(channel=2, reference=wanted)
    score = target.bind(network(batch)).score(network(batch))
    assert_close(score, (network(batch)[:, 2] - wanted).square(), 1e-9)


def test_a_prediction_speaks_of_no_classes() -> None:
    image = Image.from_array(scan(2)[0].float().numpy(), spacing=(1.0, 1.0))
    prediction = predict(denoiser(2).float(), image, Intensity(channel=1))
    assert prediction.labels is None
    assert not prediction.volumes
    assert prediction.in_words == "the mean of output channel 1 over the 36 pixels of the image"


def test_what_does_not_fit_is_refused() -> None:
    output = torch.rand(2, 2, 6, 6)
    with pytest.raises(TargetError, match="output channel 2 does not exist; the output has 0 to 1"):
        Intensity(channel=2).bind(output)
    with pytest.raises(TargetError, match="holds no pixel of the output"):
        Intensity(mask=torch.zeros(6, 6)).bind(output)
    with pytest.raises(TargetError, match="needs an output with places"):
        Intensity(mask=torch.ones(6, 6)).bind(output[:, :, 0, 0])
    with pytest.raises(TargetError, match="does not fit an output channel"):
        ReconstructionError(reference=torch.ones(5, 6)).bind(output)
    with pytest.raises(TargetError, match="NaN or infinite"):
        ReconstructionError(reference=torch.full((6, 6), torch.nan)).bind(output)
    with pytest.raises(ConfigError, match="a mask or a box, not both"):
        parse_target({"kind": "intensity", "mask": [[1]], "box": [(0, 1), (0, 1)]})
    with pytest.raises(TargetError, match="an error of a reconstruction has none"):
        explain(
            nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()),
            torch.rand(1, 1, 6, 6),
            "excitation_backprop",
            ReconstructionError(reference=torch.ones(6, 6)),
        )
