"""Contrast maps: one target against another, through any method."""

from __future__ import annotations

from typing import Any

import pytest
from every_method import short
from networks import assert_close, classifier, images, segmenter

from voxplain.attribution import explain
from voxplain.errors import ConfigError, VoxplainError
from voxplain.records.sidecar import Sidecar

ONE, TWO = ({"kind": "class_score", "label": label} for label in (1, 2))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("of", ["saliency", "integrated_gradients", "layer_conductance"])
def test_linear_methods_give_the_difference_of_two_maps(rank: int, of: str) -> None:
    network, inputs = classifier(rank, 2).double(), images(rank, 2, 2).double()
    method: dict[str, Any] = {"name": "contrast_map", "of": short(of), "against": 2}
    attribution = explain(network, inputs, method, 1)[f"contrast_map_{of}"]
    first, second = (explain(network, inputs, short(of), label)[of].map for label in (1, 2))
    assert_close(attribution.map, first - second, 1e-11)
    assert float(attribution.map.abs().max()) > 0
    shares = attribution.stats.completeness or attribution.stats.flow
    assert (shares is None) is (of == "saliency")


def test_it_is_the_method_on_a_contrast() -> None:
    """Also where the method is not linear in the score, and for probabilities."""
    network, inputs = classifier(2, 2).double(), images(2, 2, 2).double()
    likely = {"kind": "class_score", "label": 2, "link": "probability"}
    both = {"kind": "contrast", "a": ONE, "b": likely}
    inner = {"name": "guided_backprop", "abs": True}
    method = {"name": "contrast_map", "of": inner, "against": likely}
    attribution = explain(network, inputs, method, ONE)["contrast_map_guided_backprop"]
    expected = explain(network, inputs, inner, both)["guided_backprop"]
    assert_close(attribution.map, expected.map, 1e-12)
    assert attribution.stats.scores == expected.stats.scores
    sidecar = attribution[0].sidecar
    assert sidecar.sign == "absolute"
    assert "against" in sidecar.target.in_words
    assert Sidecar.model_validate_json(sidecar.model_dump_json()) == sidecar


def test_with_masks_noise_and_dense_outputs() -> None:
    network, inputs = segmenter(2, 1).double(), images(2, 1, 1).double()
    one, two = ({"kind": "pixelwise", "label": label} for label in (1, 2))
    of = {"name": "smoothgrad", "of": "saliency", "samples": 3}
    methods = [
        {"name": "contrast_map", "of": of, "against": two, "label": "noisy"},
        {"name": "contrast_map", "of": "occlusion", "against": two, "label": "boxes"},
    ]
    attributions = explain(network, inputs, methods, one)
    for key, inner in (("noisy", of), ("boxes", "occlusion")):
        first, second = (
            next(iter(explain(network, inputs, inner, target).values())).map
            for target in (one, two)
        )
        assert_close(attributions[key].map, first - second, 1e-9, key)


def test_what_cannot_be_contrasted_is_said() -> None:
    network, inputs = classifier(2, 2), images(2, 2, 1)
    method: dict[str, Any] = {"name": "contrast_map", "of": "saliency", "against": 2}
    with pytest.raises(ConfigError, match="a contrast already"):
        explain(network, inputs, method, {"kind": "contrast", "a": ONE, "b": TWO})
    with pytest.raises(ConfigError, match="target of its own"):
        explain(network, inputs, {**method, "of": "layer_activation_guided_backprop"}, 1)
    with pytest.raises(ConfigError, match="sallency"):
        explain(network, inputs, {**method, "of": "sallency"}, 1)
    with pytest.raises(ConfigError, match="unknown target"):
        explain(network, inputs, {**method, "against": "classscore"}, 1)
    with pytest.raises(VoxplainError):
        explain(network, inputs, {**method, "against": 1}, 1)
