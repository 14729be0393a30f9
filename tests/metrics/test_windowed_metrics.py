"""Networks that see a volume in windows are scored on the prediction for the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from every_metric import NAMES, SEGMENT, short
from metric_cases import metric_context, value
from networks import convolution, images, untouched
from torch import nn
from windowed_cases import exact, global_context

from voxplain.attribution import explain
from voxplain.metrics import Case, MapField, evaluate
from voxplain.models.model import Model

every_rank = pytest.mark.parametrize("rank", [2, 3])
WINDOW = {"size": 5, "overlap": 0.4, "batch": 3}


def _pointwise(rank: int) -> nn.Sequential:
    """Every voxel by itself, so that windows change nothing."""
    torch.manual_seed(2)
    conv = convolution(rank)
    network = nn.Sequential(conv(2, 4, 1), nn.Tanh(), conv(4, 3, 1)).double().eval()
    with torch.no_grad():
        network[2].bias -= (
            network(images(rank, 2, 1, 8).double()).transpose(0, 1).flatten(1).mean(1)
        )
    return network


@every_rank
def test_every_metric_in_windows_equals_the_whole(rank: int) -> None:
    network, image = _pointwise(rank), images(rank, 2, 1, 8).double()
    mask = torch.zeros(image.shape[2:])
    mask[(slice(2, 4),) * rank] = 1
    tables = []
    with untouched(network):
        for model in (Model(network, name="n"), Model(network, window=WINDOW, name="n")):
            maps = explain(model, image, ["saliency", "input_x_gradient"], SEGMENT)
            specs = [short(name) for name in NAMES if name != "smooth_parameter_randomization"]
            others = images(rank, 2, 4, 8).double()[1:]
            tables.append(
                evaluate(
                    model,
                    image,
                    maps,
                    specs,
                    SEGMENT,
                    cases=[Case(mask=mask)],
                    references=others,
                    controls=False,
                )
            )
    whole, windowed = tables
    assert len(whole) == len(windowed)
    for row, windowed_row in zip(whole, windowed, strict=True):
        assert windowed_row.value == pytest.approx(row.value, rel=1e-5, abs=1e-7, nan_ok=True), (
            row.metric
        )
        assert row.reason == windowed_row.reason


@every_rank
@pytest.mark.parametrize("build", [exact, global_context])
def test_deletion_removes_from_the_whole_image(rank: int, build: object) -> None:
    """By brute force: each masked image through the blended output, even where windows matter."""
    case = build(rank)  # type: ignore[operator]
    model, image = case.model, case.image
    context = metric_context(model, image[0], target=SEGMENT)
    values = torch.randn(image.shape[2:], generator=torch.Generator().manual_seed(1))
    levels = 3
    parameters = {"fill": 0.2, "levels": levels}
    curve = value("deletion", MapField("m", values[None]), context, **parameters).curve
    order = values.flatten().argsort(descending=True)
    scores = []
    for level in range(levels + 1):
        masked = image.clone()
        masked.view(2, -1)[:, order[: round(len(order) * level / levels)]] = 0.2
        scores.append(float(context.bound.field.score(model.output(masked))[0]))
    relative = (np.array(scores) - scores[-1]) / (scores[0] - scores[-1])
    assert [y for _, y in curve] == pytest.approx(relative, abs=1e-9)


@every_rank
def test_infidelity_sees_the_blended_score(rank: int) -> None:
    case = global_context(rank)
    attribution = explain(case.model, case.image, "saliency", SEGMENT)["saliency"]
    scores = evaluate(
        case.model,
        case.image,
        {"exact": attribution, "other": torch.randn_like(attribution.map)},
        [{"name": "infidelity_normalized", "sigma": 1e-5, "draws": 16}],
        SEGMENT,
        controls=False,
    )
    exact_value, random_value = scores.values()
    assert exact_value < 0.01  # the gradient of the blended output explains small changes
    assert random_value > 0.3
