"""The record of a cascade: curves of every map and of an edge detector, and planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_cases import CLASS_ONE, metric_context
from networks import classifier, images

from voxplain.attribution import explain
from voxplain.image import Grid, Image
from voxplain.metrics import Case, evaluate, parse_metric
from voxplain.metrics.controls import edges
from voxplain.metrics.randomization import Cascade, recorded
from voxplain.records.cascades import MEASURES, scores_along, similarities


def test_curves_and_pictures_of_a_flat_image() -> None:
    network, image = classifier(), images()
    attributions = explain(network, image, ["saliency"], CLASS_ONE)
    maps = {name: attribution[0] for name, attribution in attributions.items()}
    context = metric_context(network, image[0], maps, CLASS_ONE)
    query = Cascade(seeds=2, pictures=True)
    steps = context.run_query(query)
    record, pictures = recorded(context, steps, "top_down", "p01")
    assert record.stages == [[], ["head"], ["conv2"], ["conv1"]]
    assert [own_record.method for own_record in record.maps] == ["saliency", "edges"]
    saliency, control = record.maps
    for measure in MEASURES:
        curves = [[getattr(s, measure) for s in curve] for curve in steps["saliency"].curves]
        np.testing.assert_allclose(similarities(saliency, measure), curves)
        assert (similarities(control, measure) == 1).all()
    assert control.control
    assert control.sign == "positive"
    assert not saliency.control
    assert saliency.sign == "signed"
    np.testing.assert_allclose(pictures["saliency"][0], maps["saliency"].map.sum(0), atol=1e-6)
    unmoved = edges(image[0], (1.0, 1.0))
    for picture in pictures["edges"]:
        np.testing.assert_allclose(picture, unmoved, atol=1e-6)
    assert pictures["image"].min() >= 0
    assert pictures["image"].max() <= 1


def test_without_pictures_only_curves_are_kept() -> None:
    network, image = classifier(), images()
    attributions = explain(network, image, ["saliency"], CLASS_ONE)
    context = metric_context(network, image[0], {"saliency": attributions["saliency"][0]})
    steps = context.run_query(Cascade(seeds=1))
    record, pictures = recorded(context, steps, "top_down")
    assert pictures == {}
    assert len(record.maps) == 2


def test_the_plane_of_a_volume_is_oriented_as_radiologists_view_it() -> None:
    """On turned axes: the patient's front is up, the right is at the left."""
    network = classifier(3)
    data = torch.zeros(1, 6, 6, 6)
    data[0, 3, 4, 5] = 1.0  # axes run up, front and left
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1, 3, -2, 1
    image = Image(data + 0.01 * torch.rand_like(data), Grid(data.shape[1:], affine))
    context = metric_context(network, image, explain(network, image, ["saliency"], CLASS_ONE))
    steps = context.run_query(Cascade(seeds=1, pictures=True))
    record, pictures = recorded(context, steps, "top_down")
    assert record.aspect == 1.5
    plane = pictures["image"]
    assert plane.shape == (6, 6)
    row, column = np.unravel_index(plane.argmax(), plane.shape)
    assert (row, column) == (1, 5)
    assert pictures["saliency"].shape == (4, 6, 6)


def test_scores_of_every_map_and_of_the_edge_detector_are_kept() -> None:
    network, image = classifier(), images()
    attributions = explain(network, image, ["saliency", "input_x_gradient"], CLASS_ONE)
    context = metric_context(
        network, image[0], {name: maps[0] for name, maps in attributions.items()}
    )
    metrics = tuple(map(parse_metric, ["sparseness", {"name": "deletion", "levels": 3}]))
    steps = Cascade(seeds=2, metrics=metrics).run(context)
    record, _ = recorded(context, steps, "top_down", metrics=metrics)
    assert [own_record.method for own_record in record.maps] == [
        "saliency",
        "input_x_gradient",
        "edges",
    ]
    assert [followed.key for followed in record.metrics] == ["sparseness", "deletion, levels 3"]
    assert [followed.direction for followed in record.metrics] == ["up", "down"]
    assert record.metrics[0].meaning == metrics[0].meaning()
    for own_record in record.maps:
        for followed in record.metrics:
            expected = steps[own_record.method].scores[followed.key]
            np.testing.assert_array_equal(scores_along(own_record, followed.key), expected)
            assert scores_along(own_record, followed.key).shape == (2, 4)
    edges = record.maps[-1]
    assert (similarities(edges, "hog") == 1).all()
    assert edges.chance["spearman"] == []


@pytest.mark.parametrize(("rank", "physical"), [(2, True), (3, True), (2, False), (3, False)])
def test_units_are_those_of_the_table(rank: int, physical: bool) -> None:
    network, data = classifier(rank), images(rank)
    image = Image(data[0], Grid.default(tuple(data.shape[2:]), 2.0)) if physical else data[0]
    scan = image if isinstance(image, Image) else data
    mask = torch.zeros(data.shape[2:])
    mask[2:4, 2:4] = 1
    maps = explain(network, scan, ["saliency"], CLASS_ONE)
    chosen = [parse_metric(name) for name in ("effective_volume", "distance_to_lesion", "entropy")]
    rows = evaluate(network, scan, maps, chosen, CLASS_ONE, cases=[Case(mask=mask)], controls=False)
    single = maps if physical else {name: attribution[0] for name, attribution in maps.items()}
    context = metric_context(network, image, single)
    steps = Cascade(seeds=1).run(context)
    record, _ = recorded(context, steps, "top_down", metrics=chosen)
    assert [followed.unit for followed in record.metrics] == [row.unit for row in rows]
