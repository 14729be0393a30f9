"""The page of methods is what the registry says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from script import load_script

from voxplain.attribution.describe.card import PassCost, method_card
from voxplain.attribution.describe.families import FAMILIES, family, in_order
from voxplain.attribution.describe.parameters import parameters
from voxplain.attribution.methods import methods

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("write_methods_page")


def test_the_page_is_in_step_with_the_registry(script: ModuleType) -> None:
    written = (ROOT / "docs/methods.md").read_text("utf-8")
    if written != script.page():
        pytest.fail(f"docs/methods.md is out of date; run: {script.COMMAND}")


def test_the_page_has_an_entry_for_every_method_of_the_package(script: ModuleType) -> None:
    page = script.page()
    for name in methods:
        own = methods.get(name).__module__.startswith("voxplain.")
        assert (f"\n### {name}\n" in page) is own
    assert "NaN" not in page
    assert "PydanticUndefined" not in page


def test_every_method_says_what_it_is() -> None:
    known = {each.name for each in FAMILIES}
    for name in methods:
        kind = methods.get(name)
        assert kind.meaning().endswith("."), name
        if kind.__module__.startswith("voxplain."):
            assert kind.family in known, f"{name}: {kind.family!r} is not in attribution/families"


@pytest.mark.parametrize(
    ("name", "picture", "volume"),
    [
        ("saliency", PassCost(1, 0), PassCost(1, 0)),
        ("integrated_gradients", PassCost(32, 0), PassCost(32, 0)),
        ("smoothgrad", PassCost(25, 0), PassCost(25, 0)),
        ("occlusion", PassCost(0, 11**2), PassCost(0, 11**3)),
        ("rise", PassCost(0, 4000), PassCost(0, 2000)),
        ("feature_ablation", PassCost(0, 100), PassCost(0, 100)),
    ],
)
def test_costs_are_those_of_the_definitions(name: str, picture: PassCost, volume: PassCost) -> None:
    assert method_card(methods.get(name)).costs == (picture, volume)


def test_portraits_tell_methods_apart() -> None:
    seen = {name: method_card(methods.get(name)) for name in methods}
    assert {"integrated_gradients", "deep_lift"} <= {n for n, p in seen.items() if p.complete}
    assert not seen["saliency"].complete
    assert not seen["layer_conductance"].complete
    assert seen["layer_conductance"].flows
    assert {"gradient_shap", "smoothgrad", "rise"} <= {n for n, p in seen.items() if p.random}
    assert not any(seen[name].random for name in ("occlusion", "feature_ablation", "grad_cam"))
    assert {"gradient_shap", "deep_lift_shap"} <= {n for n, p in seen.items() if p.needs_references}
    assert not seen["deep_lift"].needs_references
    assert seen["occlusion"].forwards_only
    assert not seen["grad_cam"].forwards_only
    assert seen["grad_cam"].exact_in_windows
    assert not seen["layer_cam"].exact_in_windows
    assert not seen["guided_backprop"].exact_in_windows


def test_parameters_are_told_as_a_study_writes_them() -> None:
    found = {each.name: each for each in parameters(methods.get("occlusion"))}
    assert found["window"].kind == "size"
    assert found["window"].default == "0.1667"
    assert found["stride"].default == "-"
    assert found["fill"].default == "blur, sigma 0.5"
    assert found["fill"].kind.startswith("constant | mean | blur")
    (regions,) = (e for e in parameters(methods.get("kernel_shap")) if e.name == "regions")
    assert regions.kind == "supervoxels | blocks | labels | channels | integer | string"
    assert found["abs"].shared
    assert not found["window"].shared
    (of,) = (each for each in parameters(methods.get("vargrad")) if each.name == "of")
    assert of.default == "required"
    (of,) = (each for each in parameters(methods.get("smoothgrad")) if each.name == "of")
    assert of.default == "saliency"
    (samples,) = (each for each in parameters(methods.get("smoothgrad")) if each.name == "samples")
    assert samples.meaning == "number of copies"


def test_a_family_of_a_plug_in_comes_last() -> None:
    names = [each.name for each in in_order(["zebra", "cam", "gradient", "cam"])]
    assert names == ["gradient", "cam", "zebra"]
    assert family("my_kind").title == "My kind"
