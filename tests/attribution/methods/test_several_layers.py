"""Methods whose map lies on the image, asked about several layers in one entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import assert_close, images
from tiny import save
from torch import nn

from voxplain.attribution import explain
from voxplain.engine.context import Context
from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.checked_study import check_study

LAYERS = ("0", "2")
METHODS: list[dict[str, Any]] = [
    {"name": "grad_cam"},
    {"name": "layer_cam", "relu": False},
    {"name": "guided_grad_cam"},
    {"name": "score_cam"},
    {"name": "layer_activation_guided_backprop", "channel": 0},
    {"name": "excitation_backprop"},
    {"name": "contrastive_excitation_backprop"},
]


def network(rank: int) -> nn.Module:
    torch.manual_seed(0)
    conv = getattr(nn, f"Conv{rank}d")
    layers = [conv(1, 3, 3, padding=1), nn.ReLU(), conv(3, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 6**rank, 2))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method["name"]))
@pytest.mark.parametrize("rank", [2, 3])
def test_each_layer_has_the_map_that_it_has_alone(method: dict[str, Any], rank: int) -> None:
    model, inputs = network(rank), images(rank, 1, 2)
    several = explain(model, inputs, {**method, "layers": LAYERS}, 1)
    assert list(several) == [f"{method['name']}@{layer}" for layer in LAYERS]
    for layer in LAYERS:
        alone = explain(model, inputs, {**method, "layer": layer}, 1)[method["name"]]
        found = several[f"{method['name']}@{layer}"]
        assert_close(found.map, alone.map, 1e-6)
        assert found.layer is None
        assert found.method.model_dump()["layer"] == layer


def test_a_sweep_of_cams_is_one_pass() -> None:
    several = explain(network(2), images(2), {"name": "grad_cam", "layers": LAYERS}, 1)
    assert [each.stats.passes for each in several.values()] == [1, 1]
    assert several["grad_cam@0"].stats.shared_with == ("grad_cam@2",)


def test_one_layer_in_a_list_keeps_the_plain_name() -> None:
    maps = explain(network(2), images(2), {"name": "grad_cam", "layers": ["0"]}, 1)
    assert list(maps) == ["grad_cam"]
    assert maps["grad_cam"].method.model_dump()["layer"] == "0"


@pytest.mark.parametrize("label", [None, "smooth"])
def test_a_wrapper_has_a_map_for_each_layer(label: str | None) -> None:
    method = {"name": "smoothgrad", "of": {"name": "hires_cam", "layers": LAYERS}, "samples": 3}
    maps = explain(network(2), images(2), {**method, "label": label}, 1)
    start = label or "smoothgrad_hires_cam"
    assert list(maps) == [f"{start}@0", f"{start}@2"]
    inner = {"name": "hires_cam", "layer": "2"}
    alone = explain(network(2), images(2), {**method, "of": inner}, 1)
    assert_close(maps[f"{start}@2"].map, alone["smoothgrad_hires_cam"].map, 1e-6)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="give layer"):
        parse_method({"name": "grad_cam", "layer": "0", "layers": ["2"]})
    with pytest.raises(ConfigError, match="one of them is there twice"):
        parse_method({"name": "grad_cam", "layers": ["0", "0"]})
    several = parse_method({"name": "grad_cam", "layers": LAYERS})
    with pytest.raises(ConfigError, match="one map is needed here"):
        several.requests(Context.open(network(2), images(2)))


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "excitation_backprop"])
@pytest.mark.parametrize("rank", [2, 3])
def test_all_layers_are_those_with_a_place_in_the_image(name: str, rank: int) -> None:
    """Not the units of the head; what is flattened for them still has its places."""
    model, inputs = network(rank), images(rank, 1, 2)
    found = explain(model, inputs, {"name": name, "layers": "all"}, 1)
    paths = ["0", "1", "2", "3", "4"]
    assert list(found) == [f"{name}@{path}" for path in paths]
    listed = explain(model, inputs, {"name": name, "layers": paths}, 1)
    for key, attribution in found.items():
        assert torch.equal(attribution.map, listed[key].map)


def test_all_layers_of_what_is_inside_a_wrapper() -> None:
    inner = {"name": "hires_cam", "layers": "all"}
    found = explain(network(2), images(2), {"name": "smoothgrad", "of": inner, "samples": 2}, 1)
    assert list(found) == [f"smoothgrad_hires_cam@{path}" for path in "01234"]
    with pytest.raises(ConfigError, match="has all layers, and one map is needed here"):
        parse_method(inner).requests(Context.open(network(2), images(2)))


def test_a_study_asks_each_of_its_networks_for_all_layers(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.random.default_rng(0).random((16, 16, 8), dtype=np.float32))
    study = {
        "models": [
            {"name": "small", "factory": "voxplain.zoo:unet3d", "arguments": {"widths": [2, 4]}},
            {"name": "large", "factory": "voxplain.zoo:unet3d", "arguments": {"widths": [2, 4, 8]}},
        ],
        "cases": [{"id": "a", "image": str(tmp_path / "a.nii.gz")}],
        "target": 1,
        "methods": [{"name": "grad_cam", "layers": "all"}],
    }
    counts: dict[str, int] = {}
    for task in check_study(StudyConfig.model_validate(study)).plan.tasks:
        name = task.combination.model
        counts[name] = counts.get(name, 0) + len(task.methods)
        assert all(method.key.startswith("grad_cam@") for method in task.methods.values())
    assert 4 < counts["small"] < counts["large"]


def test_a_study_has_a_method_for_each_layer() -> None:
    study = StudyConfig.model_validate(
        {
            "models": [{"name": "net", "factory": "voxplain.zoo:unet2d"}],
            "cases": [{"id": "a", "image": "a.nii.gz"}],
            "target": 1,
            "methods": [{"name": "grad_cam", "layers": ["enc1", "enc2"]}, "saliency"],
        }
    )
    assert [method.key for method in study.methods] == [
        "grad_cam@enc1",
        "grad_cam@enc2",
        "saliency",
    ]


def test_smoothgrad_is_of_saliency_unless_something_else_is_said() -> None:
    model, inputs = network(2), images(2, 1, 2)
    plain, stated = (
        explain(model, inputs, method, 1)["smoothgrad_saliency"]
        for method in ("smoothgrad", {"name": "smoothgrad", "of": "saliency"})
    )
    assert torch.equal(plain.map, stated.map)
    assert plain.stats.passes == 25


@pytest.mark.parametrize("rank", [2, 3])
def test_feature_permutation_compares_the_images_of_a_batch(rank: int) -> None:
    """Every image with the others, as with these as references; equal images do not count."""
    model, inputs = network(rank), images(rank, 1, 3)
    batch = torch.cat([inputs, inputs[:1]])
    method = {"name": "feature_permutation", "regions": {"kind": "blocks", "size": 3}}
    found = explain(model, batch, method, 1)["feature_permutation"]
    for row in range(3):
        others = batch[[n for n in range(4) if n != row and not (row == 0 and n == 3)]]
        alone = explain(model, inputs[row : row + 1], method, 1, references=others)
        assert_close(found.map[row], alone["feature_permutation"].map[0], 1e-5)
    with pytest.raises(ConfigError, match="a batch of different images"):
        explain(model, inputs[:1].repeat(2, *(1,) * (rank + 1)), method, 1)
