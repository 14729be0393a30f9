"""Controls: how each is made, and that exact maps score better."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from every_metric import lesion
from metric_cases import CLASS_ONE, LinearClasses, bright, metric_context, value
from networks import classifier, images, segmenter
from torch import Tensor

from voxplain.image import Image
from voxplain.metrics import Case, MapField, evaluate
from voxplain.metrics.controls import CONTROLS, center, control_maps, edges, random_map

every_rank = pytest.mark.parametrize("rank", [2, 3])


@every_rank
@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_random_maps_have_no_gap(task: str, rank: int, fill: str) -> None:
    """Within three standard errors of 0, whatever the network."""
    if task == "classification":
        network, target = classifier(rank), CLASS_ONE
    else:
        network, target = segmenter(rank), {"kind": "pixelwise", "label": 1}
    image = images(rank)[0]
    context = metric_context(network, image, target=target)
    gaps = [
        value(
            "morf_lerf_gap",
            MapField("m", torch.randn(1, *image.shape[1:]), key=str(n)),
            context,
            levels=6,
            fill=fill,
        ).value
        for n in range(40)
    ]
    assert np.std(gaps) > 0
    assert abs(np.mean(gaps)) < 3 * np.std(gaps, ddof=1) / math.sqrt(len(gaps))


@every_rank
def test_an_exact_map_beats_every_control(rank: int) -> None:
    """In the direction that each metric declares."""
    image = bright(rank, 1, 6)
    network = LinearClasses(tuple(image.shape))
    shares = network.weight.detach()[1] * image
    specs = [
        {"name": "infidelity"},
        {"name": "infidelity_normalized"},
        {"name": "deletion", "fill": "zero"},
        {"name": "insertion", "fill": "zero"},
        {"name": "morf_lerf_gap", "fill": "zero"},
        {"name": "pixel_flipping", "fill": "zero"},
        *(
            {"name": name, "fill": "zero", "regions": {"kind": "blocks", "size": 2}}
            for name in ("irof", "region_perturbation", "faithfulness_correlation")
        ),
    ]
    with torch.no_grad():
        network.weight.abs_()  # all evidence speaks for the class, so that areas lie in [0, 1]
    scores = evaluate(network, image[None], [{"exact": shares.abs()}], specs, CLASS_ONE)
    for row in scores.of(control=False):
        others = scores.of(metric=row.metric, control=True).values()
        assert len(others) == 4
        better = min(others) if row.direction == "down" else max(others)
        assert (row.value < better) if row.direction == "down" else (row.value > better), row.metric


@every_rank
def test_random_maps_have_the_spectrum_of_the_image(rank: int) -> None:
    image = bright(rank, 1, 8).cumsum(1)
    values = random_map(image, "key")
    axes = tuple(range(rank))
    spectrum = torch.fft.fftn(image[0] - image[0].mean(), dim=axes).abs()
    assert torch.fft.fftn(values, dim=axes).abs() == pytest.approx(spectrum, abs=1e-6)
    assert torch.equal(values, random_map(image, "key"))
    others = [random_map(image, str(n)) for n in range(30)]
    correlations = [
        float(torch.corrcoef(torch.stack([image[0].flatten(), o.flatten()]))[0, 1]) for o in others
    ]
    assert abs(np.mean(correlations)) < 3 * np.std(correlations) / math.sqrt(30)


def test_edges_are_slopes_per_millimeter() -> None:
    ramp = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 6, 6).double()
    assert edges(ramp, (2.0, 1.0, 1.0))[2, 3, 3] == pytest.approx(0.5)
    assert edges(ramp.transpose(1, 3), (2.0, 1.0, 1.0))[3, 3, 2] == pytest.approx(1)
    both = torch.cat([ramp, 2 * ramp])
    assert edges(both, (1.0, 1.0, 1.0))[2, 3, 3] == pytest.approx(math.sqrt(5))
    assert float(edges(torch.ones(1, 6, 6), (1.0, 1.0)).abs().max()) == 0


@every_rank
def test_the_center_is_in_the_middle(rank: int) -> None:
    values = center((9,) * rank)
    assert int(values.flatten().argmax()) == values.numel() // 2
    sigma = values[(4,) * (rank - 1)][4] / values[(4,) * (rank - 1)][4 + 2]
    assert float(sigma) == pytest.approx(math.exp((2 / (9 / 4)) ** 2 / 2))


@every_rank
def test_the_table_of_controls(rank: int) -> None:
    image = bright(rank, 2, 6)
    context = metric_context(LinearClasses(tuple(image.shape)), image, mask=lesion(rank))
    controls = {field.name: field for field in control_maps(context)}
    assert tuple(controls) == CONTROLS
    assert torch.equal(controls["intensity"].values, image.abs().sum(0))
    assert torch.equal(controls["reference"].values, lesion(rank).double())
    bare = metric_context(LinearClasses(tuple(image.shape)), image)
    assert "reference" not in {field.name for field in control_maps(bare)}


def _rows(image: Tensor | Image) -> list[float]:
    network = LinearClasses((1, 6, 6))
    scores = evaluate(
        network,
        image,
        {"m": torch.randn(1, 6, 6)},
        ["roc_auc"],
        CLASS_ONE,
        cases=[Case(mask=lesion(2))],
    )
    return scores.of(control=True).values()


def test_edges_are_per_millimeter_for_an_image_on_its_grid() -> None:
    image = bright(2, 1, 6)
    flat, tall = (_rows(Image.from_array(image, spacing)) for spacing in ((1, 1), (9, 1)))
    assert flat != tall  # edges across long voxels are weaker
