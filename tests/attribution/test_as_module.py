"""A target as a module: the same numbers and maps as voxplain's own, through captum."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion, Saliency
from networks import assert_close, classifier, images, segmenter
from torch import nn

import voxplain as vx
from voxplain.attribution import as_module, explain
from voxplain.errors import ConfigError, InputError, TargetError
from voxplain.targets import parse_target

TARGETS: dict[str, list[Any]] = {
    "classifier": [1, {"kind": "class_score", "label": 2, "link": "log_odds"}],
    "segmenter": [
        {"kind": "pixelwise", "label": 1},
        {"kind": "pixelwise", "label": 2, "link": "probability"},
        {"kind": "volume", "label": 0},
    ],
}
CASES = [(task, target, rank) for task in TARGETS for target in TARGETS[task] for rank in (2, 3)]


def network(task: str, rank: int) -> nn.Module:
    return {"classifier": classifier, "segmenter": segmenter}[task](rank, 2).double().eval()


@pytest.mark.parametrize(("task", "target", "rank"), CASES)
def test_captum_finds_the_maps_of_voxplain(task: str, target: Any, rank: int) -> None:
    model, image = network(task, rank), images(rank, 2, 1).double()
    module = as_module(model, target, image)
    own = explain(
        model,
        image,
        ["saliency", {"name": "integrated_gradients", "steps": 6}],
        target,
    )
    shown = image.clone().requires_grad_(True)
    gradient = Saliency(module).attribute(shown, abs=False)
    assert_close(gradient, own["saliency"].map, 1e-10)
    path = IntegratedGradients(module).attribute(image, n_steps=6, method="gausslegendre")
    assert_close(path, own["integrated_gradients"].map, 1e-6)


@pytest.mark.parametrize("rank", [2, 3])
def test_captum_occludes_and_reads_layers(rank: int) -> None:
    model, image = network("segmenter", rank), images(rank, 2, 1).double()
    target = {"kind": "pixelwise", "label": 1}
    module = as_module(model, target, image)
    side = 2
    box = {"window": side, "stride": side, "fill": 0.0}
    layer = next(name for name, each in model.named_modules() if "Conv" in type(each).__name__)
    own = explain(
        model,
        image,
        [{"name": "occlusion", **box}, {"name": "layer_grad_cam", "layers": layer}],
        target,
    )
    boxes = Occlusion(module).attribute(
        image, (2, *(side,) * rank), strides=(2, *(side,) * rank), baselines=0
    )
    assert_close(boxes[:, :1], own["occlusion"].map, 1e-6)
    cam = LayerGradCam(module, module.network.get_submodule(layer)).attribute(image)
    assert_close(cam, own["layer_grad_cam"].map, 1e-6)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_all_classes_have_one_value_each(task: str, rank: int) -> None:
    """Column k is target k; a class that is predicted nowhere is worth 0."""
    model, batch = network(task, rank), images(rank, 2, 3).double()
    values = as_module(model)(batch)
    output = model(batch)
    assert values.shape == output.shape[:2]
    expected = output
    if task == "segmenter":
        classes = output.argmax(dim=1)[:, None] == torch.arange(output.shape[1]).view(
            1, -1, *(1,) * rank
        )
        expected = (output * classes).flatten(2).sum(dim=2)
    assert_close(values, expected, 1e-10)
    fixed = as_module(model, images=batch[:1])(batch[:1])
    assert_close(fixed, expected[:1], 1e-10)
    several = as_module(model, [2, 0])(batch)
    assert_close(several, expected[:, [2, 0]], 1e-10)


def test_one_channel_has_two_classes_of_opposite_sign() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 1)).double()
    batch = images(2, 1, 3, 3).double()
    values = as_module(model)(batch)
    assert_close(values, torch.cat([-model(batch), model(batch)], dim=1), 1e-12)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_region_is_fixed_on_the_image_or_moves_with_the_input(rank: int) -> None:
    model, image = network("segmenter", rank), images(rank, 2, 1).double()
    other = image.flip(-1) * 0.3
    target = parse_target({"kind": "pixelwise", "label": 1})
    with torch.no_grad():
        fixed = target.bind(model(image)).score(model(other))
    assert_close(as_module(model, target, image)(other), fixed, 1e-12)
    inside = model(other).argmax(dim=1) == 1
    assert_close(
        as_module(model, target)(other), (model(other)[:, 1] * inside).flatten(1).sum(1), 1e-12
    )


def test_it_shares_the_network_and_can_be_copied() -> None:
    model, batch = network("classifier", 2).float(), images(2, 2, 2)
    module = as_module(model, 1)
    assert not module.training
    assert module.network is model
    assert module(batch).dtype == torch.float32
    module.train()
    assert model.training
    module.eval()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert float(twin(batch).detach().abs().max()) == 0
    assert float(module(batch).detach().abs().max()) > 0


def test_what_is_no_module_is_refused() -> None:
    model, batch = network("segmenter", 2), images(2, 2, 3).double()
    with pytest.raises(ConfigError, match="a model with windows runs in parts"):
        as_module(vx.Model(model, window={"size": 4}), 1)
    layer = {"kind": "unit", "layer": "0", "channel": 0}
    with pytest.raises(ConfigError, match="other tools take layers themselves"):
        as_module(model, layer)
    fixed = as_module(model, {"kind": "volume", "label": 1}, batch[:2])
    with pytest.raises(InputError, match="fixed on 2 images, and 3 are given"):
        fixed(batch)
    with pytest.raises(TargetError, match="class 9 does not exist"):
        as_module(model, 9, batch)


def test_it_is_a_name_of_the_package() -> None:
    assert vx.as_module is as_module


def test_quantus_flips_voxels_of_a_segmentation_network() -> None:
    """The scores on the way are those of the target on the images with these voxels at 0."""
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    model, image = network("segmenter", 2).float(), images(2, 2, 1)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), model).eval()
    image = image[:, :1]
    module = as_module(model, images=image)
    own = explain(model, image, {"name": "saliency", "abs": True}, 1)["saliency"].map
    count = image.numel() // 4
    metric = quantus.PixelFlipping(
        features_in_step=count,
        perturb_baseline=0.0,
        normalise=False,
        return_auc_per_sample=False,
        disable_warnings=True,
    )
    (found,) = metric(
        model=module,
        x_batch=image.numpy(),
        y_batch=torch.tensor([1]).numpy(),
        a_batch=own.numpy(),
        device="cpu",
        softmax=False,
    )
    flat, order = image.clone().flatten(), own.flatten().argsort(descending=True)
    expected = []
    for step in range(4):
        flat[order[step * count : (step + 1) * count]] = 0
        expected.append(float(module(flat.view_as(image))[0, 1].detach()))
    assert list(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_pytorch_grad_cam_finds_the_cam_of_voxplain() -> None:
    tool = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, image = network("segmenter", 2).float(), images(2, 2, 1)
    module = as_module(model, images=image)
    layer = next(name for name, each in model.named_modules() if "Conv" in type(each).__name__)
    own = explain(model, image, {"name": "grad_cam", "layer": layer}, 1)["grad_cam"].map[0, 0]
    cam = tool.GradCAM(model=module, target_layers=[module.network.get_submodule(layer)])
    found = torch.from_numpy(cam(image, [targets.ClassifierOutputTarget(1)])[0])
    scaled = (own - own.min()) / (own.max() - own.min())
    assert_close(found.double(), scaled.double(), 1e-3)
