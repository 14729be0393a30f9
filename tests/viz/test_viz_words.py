from __future__ import annotations

import pytest

from voxplain.viz.words import (
    decimals,
    duration,
    fixed,
    number,
    percent,
    sentence,
    setting,
    sizes,
    title,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,200"),
        (-0.0342, "−0.034"),
        (9.96, "10"),
        (0.996, "1.0"),
        (4.1e-7, "4.1 × 10⁻⁷"),
        (-2.345e9, "−2.3 × 10⁹"),
        (9.99e-4, "0.0010"),
        (float("nan"), "not a number"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_values_as_text() -> None:
    assert number(41_234.5, 3) == "41,200"
    assert percent(0.0012) == "0.12 %"
    assert [duration(s) for s in (0.5, 59.2)] == ["0.50 s", "59 s"]
    assert [duration(s) for s in (200, 3900)] == ["3 min 20 s", "1 h 5 min"]
    assert sizes((192, 233.0, 1.25), "mm") == "192 × 233 × 1.25 mm"
    assert title("layer_conductance") == "Layer conductance"
    assert sentence("the score of class 1.") == "The score of class 1"
    assert setting({"kind": "constant", "value": 0.0}) == "kind constant, value 0"
    assert setting([True, None, "a"]) == "yes, none, a"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grad_cam_plus_plus", "Grad-CAM++"),
        ("x_grad_cam", "XGrad-CAM"),
        ("layer_deep_lift_shap", "Layer DeepLIFT SHAP"),
        ("smoothgrad_squared_guided_backprop", "SmoothGrad squared guided backpropagation"),
        ("input_x_gradient", "Input × gradient"),
        ("mc_rise", "MC-RISE"),
        ("layer_lrp", "Layer LRP"),
        ("My own label", "My own label"),
    ],
)
def test_methods_are_spelled_as_in_their_papers(name: str, text: str) -> None:
    assert title(name) == text


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.0001, 2, "0.00"),
        (-0.001, 2, "0.00"),
        (-0.126, 2, "−0.13"),
        (1234.5, 2, "1,234"),
        (2.5e7, 2, "2.5 × 10⁷"),
        (float("nan"), 2, "not a number"),
    ],
)
def test_fixed_decimals(value: float, places: int, text: str) -> None:
    assert fixed(value, places) == text


@pytest.mark.parametrize(
    ("values", "places"),
    [([0.1, 0.9], 2), ([0.101, 0.104], 3), ([41, 43], 2), ([], 2), ([0.0, 0.0], 2)],
)
def test_decimals_show_how_far_values_lie_apart(values: list[float], places: int) -> None:
    assert decimals(values) == places
