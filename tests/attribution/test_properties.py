"""What holds for the maps of methods: of their forms at layers, and of methods around others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from networks import classifier, images, segmenter

from voxplain.attribution import (
    AtLayers,
    Context,
    GradientRequest,
    MapProperties,
    MeanGradient,
    Method,
    Original,
    explain,
    parse_method,
)
from voxplain.attribution.methods import methods
from voxplain.models.model import Model

WRAPPERS = ("contrast_map", "smoothgrad", "vargrad", "xrai")
PIXELS = {"kind": "pixelwise", "label": 1}


def properties(name: str, **parameters: Any) -> MapProperties:
    needed = {"against": 0, "layer_channels": (0,), "of": "saliency"}
    fields = methods.get(name).model_fields
    required = {key: needed[key] for key, info in fields.items() if info.is_required()}
    return parse_method({"name": name, **required, **parameters}).properties()


@pytest.mark.parametrize("name", sorted(methods))
def test_parameters_of_every_method_decide_the_sign(name: str) -> None:
    plain = properties(name)
    assert plain.units
    if plain.sign == "signed":
        assert properties(name, abs=True) == replace(plain, sign="absolute")
        assert properties(name, channels="sum_abs") == replace(plain, sign="absolute")


@pytest.mark.parametrize("name", sorted(methods))
def test_maps_lie_on_a_layer_where_layers_are_parameters(name: str) -> None:
    fields = methods.get(name).model_fields
    on_layer = "layers" in fields and "layer" not in fields  # with layer, it is read and left
    assert properties(name).grid == ("layer" if on_layer else "image")


def test_a_field_named_baseline_is_the_baseline() -> None:
    assert properties("saliency").baseline is None
    assert properties("integrated_gradients", baseline=[1, 2.5]).baseline == (1, 2.5)
    baseline = torch.ones(1, 6, 6)
    assert properties("layer_deep_lift", baseline=baseline).baseline is baseline


def test_rectified_cams_are_positive() -> None:
    for name in ("grad_cam", "score_cam"):
        assert properties(name).sign == "positive"
        assert properties(name, relu=False).sign == "signed"


def test_cams_are_as_exact_in_windows_as_their_weights() -> None:
    assert properties("grad_cam").exact_in_windows
    assert not properties("layer_cam").exact_in_windows


def test_channels_of_mc_rise_are_its_fills() -> None:
    assert properties("mc_rise", fills=("mean",)).channel_names == ("hidden by mean",)


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize(
    "inner",
    [
        {"name": "integrated_gradients", "baseline": "mean"},
        {"name": "grad_cam", "relu": False},
        {"name": "saliency", "abs": True},
        "layer_cam",
        "mc_rise",
    ],
)
def test_a_wrapper_is_like_its_method_but_for_what_it_declares(name: str, inner: Any) -> None:
    expected, actual = parse_method(inner).properties(), properties(name, of=inner)
    if name == "vargrad":
        expected = replace(expected, sign="positive")
    if name == "xrai":
        units = "mean of the inner map per voxel"
        expected = replace(expected, units=units, resampling="value", complete=False)
    assert actual == expected


def test_wrappers_of_wrappers_and_of_layers() -> None:
    squares = {"name": "smoothgrad", "of": "layer_activation", "power": 2}
    actual = properties("contrast_map", of=squares)
    assert (actual.grid, actual.window_assembly, actual.sign) == ("layer", "blend", "positive")
    assert actual.units == "activation"


def test_any_gradient_method_has_a_form_at_layers() -> None:
    class Slope(Method):
        """A gradient of a plug-in, which knows nothing of layers."""

        name: Literal["slope"] = "slope"

        def requests(self, context: Context) -> tuple[GradientRequest, ...]:
            return (GradientRequest(Original(), MeanGradient),)

    class LayerSlope(AtLayers, Slope):
        """The same at layers."""

        name: Literal["layer_slope"] = "layer_slope"  # type: ignore[assignment]

    network, image = classifier(2), images(2)
    slope = LayerSlope(layers=("conv1", "act2"))
    actual = explain(network, image, [slope, "saliency"], 1)
    expected = explain(
        network, image, {"name": "vanilla_layer_visualization", "layers": ["conv1", "act2"]}, 1
    )
    for layer in ("conv1", "act2"):
        map_at_layer = expected[f"vanilla_layer_visualization@{layer}"].map
        assert torch.equal(actual[f"layer_slope@{layer}"].map, map_at_layer)
    assert actual["layer_slope@conv1"].stats.shared_with == ("saliency",)
    assert slope.properties().grid == "layer"
    assert slope.family == "layer"


def test_layer_forms_share_the_streams_of_their_methods() -> None:
    names = ["integrated_gradients", "layer_conductance", "internal_influence"]
    attributions = explain(classifier(2), images(2), names, 1)
    for name in names:
        assert attributions[name].stats.shared_with == tuple(sorted({*names} - {name}))


def test_only_windows_make_a_map_approximate_and_it_says_so() -> None:
    network, image = segmenter(2), images(2)
    near = "over overlapping windows this map is near that of the whole, not equal to it"

    def warned(model: Any, name: str) -> bool:
        (attribution,) = explain(model, image, name, PIXELS).values()
        return near in attribution.stats.warnings

    windowed = Model(network, window={"size": 4, "overlap": 0.5})
    for name in ("layer_cam", "full_grad", "guided_grad_cam", "lrp"):
        assert warned(windowed, name)
        assert not warned(network, name)
    for name in ("grad_cam", "saliency", "occlusion"):
        assert not warned(windowed, name)


def test_properties_are_those_of_attributions() -> None:
    (attribution,) = explain(
        classifier(2), images(2), {"name": "saliency", "abs": True}, 1
    ).values()
    sidecar, expected = attribution[0].sidecar, attribution.method.properties()
    assert (sidecar.sign, sidecar.units) == ("absolute", expected.units)
    assert sidecar.resampling == expected.resampling == "mass"
