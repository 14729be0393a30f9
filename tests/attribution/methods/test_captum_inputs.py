"""Maps of the image against captum, in 2-D and 3-D, for classifiers and segmenters."""

from __future__ import annotations

from typing import Any

import captum.attr as peer
import numpy as np
import pytest
import torch
from captum_cases import Case, build, every_case
from torch import Tensor, nn

from voxplain.engine.gradients.samplers import PointBatch, RandomPathPoint
from voxplain.engine.identity import image_key
from voxplain.engine.randomness import GaussianNoise
from voxplain.engine.stream_io import StreamInput

SAMPLES = 6


@every_case
def test_one_gradient(task: str, rank: int) -> None:
    case = build(task, rank)
    for name, attribute in {
        "saliency": lambda net, x: peer.Saliency(net).attribute(x, target=0, abs=False),
        "vanilla_backprop": lambda net, x: peer.Saliency(net).attribute(x, target=0, abs=False),
        "input_x_gradient": lambda net, x: peer.InputXGradient(net).attribute(x, target=0),
        "guided_backprop": lambda net, x: peer.GuidedBackprop(net).attribute(x, target=0),
        "deconvolution": lambda net, x: peer.Deconvolution(net).attribute(x, target=0),
    }.items():
        case.compare({"name": name}, attribute)


@every_case
def test_post_steps(task: str, rank: int) -> None:
    case = build(task, rank)
    absolute = lambda net, x: peer.Saliency(net).attribute(x, target=0)  # noqa: E731
    product = lambda net, x: peer.InputXGradient(net).attribute(x, target=0)  # noqa: E731
    case.compare({"name": "saliency", "abs": True}, absolute)
    case.compare(
        {"name": "saliency", "channels": "sum_abs"}, lambda *a: absolute(*a).sum(1, keepdim=True)
    )
    case.compare(
        {"name": "saliency", "channels": "max_abs", "abs": True},
        lambda *a: absolute(*a).amax(1, keepdim=True),
    )
    case.compare({"name": "gradient_times_image"}, lambda *a: product(*a).sum(1, keepdim=True))


QUADRATURES = {
    "gauss_legendre": "gausslegendre",
    "left": "riemann_left",
    "right": "riemann_right",
    "midpoint": "riemann_middle",
}


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_integrated_gradients(task: str, rank: int, dtype: torch.dtype) -> None:
    case = build(task, rank, dtype)
    baseline = case.references[0]
    for ours, theirs in QUADRATURES.items():

        def attribute(net: nn.Module, x: Tensor, theirs: str = theirs) -> Tensor:
            path = peer.IntegratedGradients(net)
            return path.attribute(x, baseline[None], target=0, n_steps=20, method=theirs)

        method = {
            "name": "integrated_gradients",
            "steps": 20,
            "quadrature": ours,
            "baseline": baseline,
        }
        # Captum casts its weights to float32, so its float64 maps carry that error.
        case.compare(method, attribute, 1e-5 if dtype == torch.float32 else 2e-7)


@every_case
def test_black_and_white(task: str, rank: int) -> None:
    def attribute(net: nn.Module, x: Tensor) -> Tensor:
        ends = (x.amin(dim=tuple(range(2, x.ndim)), keepdim=True).expand_as(x), x.flatten(2))
        bright = ends[1].amax(dim=2).view(*x.shape[:2], *(1,) * rank).expand_as(x)
        path = peer.IntegratedGradients(net)
        parts = [path.attribute(x, end, target=0, n_steps=12) for end in (ends[0], bright)]
        return (parts[0] + parts[1]) / 2

    build(task, rank).compare({"name": "integrated_gradients_black_white", "steps": 12}, attribute)


@every_case
def test_deep_lift(task: str, rank: int) -> None:
    case = build(task, rank)
    baseline = case.references[0]
    case.compare(
        {"name": "deep_lift", "baseline": baseline},
        lambda net, x: peer.DeepLift(net).attribute(x, baseline[None], target=0),
        1e-4,
    )
    case.compare(
        {"name": "deep_lift_shap"},
        lambda net, x: peer.DeepLiftShap(net).attribute(x, case.references, target=0),
        1e-4,
    )


@every_case
@pytest.mark.parametrize(("name", "sigma"), [("gradient_shap", 0.1), ("expected_gradients", 0.0)])
def test_gradient_shap_with_the_same_draws(
    task: str, rank: int, name: str, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = build(task, rank)

    def attribute(net: nn.Module, x: Tensor) -> Tensor:
        inject(monkeypatch, case, our_draws(case, x, sigma), x)
        shap = peer.GradientShap(net)
        return shap.attribute(x, case.references, n_samples=SAMPLES, stdevs=1.0, target=0)

    noisy = {"sigma": sigma} if name == "gradient_shap" else {}
    case.compare({"name": name, "samples": SAMPLES, **noisy}, attribute)


@every_case
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ({"name": "smoothgrad"}, "smoothgrad"),
        ({"name": "smoothgrad", "power": 2}, "smoothgrad_sq"),
        ({"name": "vargrad"}, "vargrad"),
    ],
)
def test_noise_tunnel_with_the_same_noise(
    task: str, rank: int, method: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = build(task, rank)
    for of, inner in {
        "saliency": lambda net: peer.Saliency(net),
        "guided_backprop": lambda net: peer.GuidedBackprop(net),
        "input_x_gradient": lambda net: peer.InputXGradient(net),
    }.items():

        def attribute(net: nn.Module, x: Tensor, inner: Any = inner, of: str = of) -> Tensor:
            copies = GaussianNoise(SAMPLES, 0.2).copies(x[0], f"0/{image_key(x[0])}")
            noise = torch.stack(list(copies)) - x[0]
            monkeypatch.setattr(torch, "normal", lambda *_, **__: noise)
            tunnel = peer.NoiseTunnel(inner(net))
            extra = {"abs": False} if of == "saliency" else {}
            return tunnel.attribute(
                x, nt_type=kind, nt_samples=SAMPLES, stdevs=1.0, target=0, **extra
            )

        case.compare({**method, "of": of, "samples": SAMPLES, "sigma": 0.2}, attribute)


@every_case
def test_guided_grad_cam(task: str, rank: int) -> None:
    case = build(task, rank)

    def attribute(net: nn.Module, x: Tensor) -> Tensor:
        cam = peer.GuidedGradCam(net, case.layer(net, "conv2"))
        return cam.attribute(x, target=0, interpolate_mode="nearest")

    method = {"name": "guided_grad_cam", "layer": "conv2", "interpolation": "nearest"}
    case.compare(method, attribute)


def our_draws(case: Case, image: Tensor, sigma: float) -> PointBatch:
    """The references, positions and noise that voxplain draws for one image at seed 0."""
    item = StreamInput(image[0], 0, f"0/{image_key(image[0])}", case.references)
    return RandomPathPoint(SAMPLES, sigma).route(item).draw(range(SAMPLES))


def inject(monkeypatch: pytest.MonkeyPatch, case: Case, draw: PointBatch, image: Tensor) -> None:
    """Makes captum's three generators give these draws."""
    assert draw.start is not None
    assert draw.end is not None
    picks = [int((case.references == start).flatten(1).all(1).nonzero()) for start in draw.start]
    lines = (draw.end - draw.start).flatten(1)
    along = ((draw.inputs - draw.start).flatten(1) * lines).sum(1) / lines.square().sum(1)
    noise = draw.end - image
    monkeypatch.setattr("numpy.random.choice", lambda *_, **__: np.array(picks))
    monkeypatch.setattr("numpy.random.uniform", lambda *_, **__: along.numpy())
    monkeypatch.setattr(torch, "normal", lambda *_, **__: noise)
