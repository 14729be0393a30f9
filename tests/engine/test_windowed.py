"""Maps of windowed networks equal the gradient of the blended output, taken in one graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, untouched
from torch import Tensor, nn
from windowed_cases import Case, blended, bound, exact, global_context, gradient, region, targets

from voxplain.attribution import Attribution, explain
from voxplain.engine.rules import Deconvnet, DeepLiftRule, Guided
from voxplain.errors import TargetError
from voxplain.models.model import Model

every_rank = pytest.mark.parametrize("rank", [2, 3])
every_target = pytest.mark.parametrize("which", range(6))
EXACT = 1e-10


def ours(case: Case, method: Any, target: dict[str, Any], **options: Any) -> Attribution:
    with untouched(case.network):
        attributions = explain(case.model, case.image, method, target, **options)
    ((_, attribution),) = attributions.items()
    return attribution


@every_rank
@every_target
class TestAnyNetwork:
    """Even where windows change the output, the map is the gradient of the blended output."""

    def test_saliency(self, rank: int, which: int) -> None:
        target = targets(rank)[which]
        for blend, batch in (("gaussian", 1), ("constant", 3)):
            case = global_context(rank, blend, batch)
            field = bound(case, target)
            attribution = ours(case, "saliency", target)
            assert_close(attribution.map, gradient(case, case.image, field.score), EXACT)
            with torch.no_grad():
                score = field.score(blended(case, case.image).output)
            assert attribution.stats.scores == pytest.approx(score.tolist())

    def test_integrated_gradients(self, rank: int, which: int) -> None:
        case, target = global_context(rank), targets(rank)[which]
        field = bound(case, target)
        baseline = torch.full_like(case.image, 0.3)
        method = {
            "name": "integrated_gradients",
            "steps": 4,
            "quadrature": "midpoint",
            "baseline": 0.3,
        }
        expected = torch.zeros_like(case.image)
        for step in range(4):
            point = baseline + (2 * step + 1) / 8 * (case.image - baseline)
            expected += gradient(case, point, field.score) / 4 * (case.image - baseline)
        attribution = ours(case, method, target)
        assert_close(attribution.map, expected, EXACT)
        with torch.no_grad():
            ends = [field.score(blended(case, end).output) for end in (case.image, baseline)]
        change = float(ends[0] - ends[1])
        residual = abs(float(expected.sum()) - change) / abs(change)
        assert attribution.stats.completeness == pytest.approx([residual], abs=1e-8)

    @pytest.mark.parametrize("rule", [Guided, Deconvnet])
    def test_rules(self, rank: int, which: int, rule: Any) -> None:
        case, target = global_context(rank), targets(rank)[which]
        field = bound(case, target)
        name = {"Guided": "guided_backprop", "Deconvnet": "deconvolution"}[rule.__name__]
        leaf = case.image.clone().requires_grad_(True)
        with rule().mode():
            score = field.score(blended(case, leaf).output).sum()
        (expected,) = torch.autograd.grad(score, leaf)
        assert_close(ours(case, name, target).map, expected, EXACT)

    def test_deep_lift(self, rank: int, which: int) -> None:
        case, target = global_context(rank), targets(rank)[which]
        field = bound(case, target)
        baseline = torch.randn_like(case.image) * 0.3
        recording = DeepLiftRule().record()
        with torch.no_grad(), recording:
            start = field.score(blended(case, baseline).output)
        leaf = case.image.clone().requires_grad_(True)
        with DeepLiftRule().replay(recording):
            score = field.score(blended(case, leaf).output)
        (multiplier,) = torch.autograd.grad(score.sum(), leaf)
        attribution = ours(case, {"name": "deep_lift", "baseline": baseline[0]}, target)
        assert_close(attribution.map, multiplier * (case.image - baseline), 1e-8)
        change = float((score - start).detach())
        assert float(attribution.map.sum()) == pytest.approx(change, rel=1e-8)
        assert attribution.stats.completeness is not None
        assert attribution.stats.completeness[0] < 1e-8

    def test_layers(self, rank: int, which: int) -> None:
        """Every window's share, added (or blended) where the window lies."""
        case, target = global_context(rank), targets(rank)[which]
        field = bound(case, target)
        leaf = case.image.clone().requires_grad_(True)
        output = blended(case, leaf, ("conv1", "act2"))
        tapped = output.tapped_values["conv1"] + output.tapped_values["act2"]
        gradients = torch.autograd.grad(field.score(output.output).sum(), tapped)
        count = len(case.layout)
        for at, layer in ((0, "conv1"), (count, "act2")):
            values = output.tapped_values[layer]
            of_windows = gradients[at : at + count]
            expected = {
                "vanilla_layer_visualization": _added(case, list(of_windows)),
                "layer_gradient_x_activation": _added(
                    case, [value * share for value, share in zip(values, of_windows, strict=True)]
                ),
                "layer_activation": _blend(case, values),
            }
            for name, map in expected.items():
                method = {"name": name, "layers": layer}
                assert_close(ours(case, method, target).map, map, EXACT, f"{name} at {layer}")


def _added(case: Case, of_windows: list[Tensor]) -> Tensor:
    volume = torch.zeros(1, of_windows[0].shape[1], *case.layout.padded, dtype=torch.float64)
    for position, values in zip(case.layout.positions, of_windows, strict=True):
        volume[case.layout.region(position)] += values.detach()
    return case.layout.unpad(volume)


def _blend(case: Case, of_windows: list[Tensor]) -> Tensor:
    weights = [case.layout.weight(position) for position in case.layout.positions]
    return _added(
        case, [values * weight for values, weight in zip(of_windows, weights, strict=True)]
    )


LAYER = "dec1.block.relu2"
AT_A_LAYER: list[dict[str, Any]] = [
    {"name": name, "layers": LAYER}
    for name in (
        "layer_activation",
        "vanilla_layer_visualization",
        "layer_gradient_x_activation",
        "linear_approximation",
        "layer_deep_lift",
        "layer_grad_cam",
    )
] + [
    {"name": "layer_conductance", "layers": LAYER, "steps": 3},
    {"name": "internal_influence", "layers": LAYER, "steps": 3},
]
AT_THE_IMAGE: list[Any] = [
    "saliency",
    "input_x_gradient",
    "deep_lift",
    {"name": "integrated_gradients", "steps": 3},
    {"name": "smoothgrad", "of": "saliency", "samples": 2},
    {"name": "vargrad", "of": "input_x_gradient", "samples": 2},
    {"name": "grad_cam", "layer": LAYER},
    {"name": "grad_cam", "layer": "bottleneck", "label": "coarse"},
    {"name": "hires_cam", "layer": LAYER},
]


@every_rank
@pytest.mark.parametrize("kind", ["pixelwise", "volume", "region"])
def test_windowed_is_whole(rank: int, kind: str) -> None:
    """With a halo as large as the receptive field, windowed and whole networks have equal maps.

    This holds for methods that are linear in the cotangent. A guided gradient of a sum of windows
    is not the sum of their guided gradients; these methods are tested on the blended graph above.
    """
    case = exact(rank)
    target = region(rank) if kind == "region" else {"kind": kind, "label": 1}
    methods = [*AT_THE_IMAGE, *AT_A_LAYER]
    windowed = explain(case.model, case.image, methods, target)
    whole = explain(case.network, case.image, methods, target)
    assert len(case.layout) >= 5
    for key, attribution in whole.items():
        assert_close(windowed[key].map, attribution.map, 1e-8, key)
        assert windowed[key].stats.scores == pytest.approx(attribution.stats.scores, rel=1e-9)
        if attribution.stats.completeness:
            assert windowed[key].stats.completeness == pytest.approx(
                attribution.stats.completeness, abs=1e-6
            )


def test_windowed_is_whole_in_float32() -> None:
    case = exact(3, torch.float32)
    for target in ({"kind": "pixelwise", "label": 1}, {"kind": "volume", "label": 1}, region(3)):
        methods = ["saliency", "deep_lift", {"name": "integrated_gradients", "steps": 2}]
        windowed = explain(case.model, case.image, methods, target)
        whole = explain(case.network, case.image, methods, target)
        for key, attribution in whole.items():
            assert_close(windowed[key].map, attribution.map, 1e-5, key)


NOT_LINEAR = (
    "x_grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "elementwise_grad_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "guided_backprop",
    "deconvolution",
)


@every_rank
@pytest.mark.parametrize("layer", [LAYER, "bottleneck"])
def test_methods_not_linear_in_the_cotangent_are_near_the_whole(rank: int, layer: str) -> None:
    """Products and rectifiers of each window's share are not those of the sum of the shares."""
    case, target = exact(rank), {"kind": "pixelwise", "label": 1}
    methods = [{"name": name, "layer": layer} if "cam" in name else name for name in NOT_LINEAR]
    windowed = explain(case.model, case.image, methods, target)
    whole = explain(case.network, case.image, methods, target)
    for name in NOT_LINEAR:
        pair = torch.stack([windowed[name].map.flatten(), whole[name].map.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.85, name


@every_rank
def test_coarse_layer_maps_equal_those_of_the_whole_volume(rank: int) -> None:
    """Layer maps of windows lie on the image grid; those of the whole are resampled to it."""
    case, target = exact(rank), {"kind": "pixelwise", "label": 1}
    method = {"name": "layer_activation", "layers": "bottleneck"}
    windowed = ours(case, method, target).map
    whole = explain(case.network, case.image, method, target)["layer_activation"].map
    mode = {2: "bilinear", 3: "trilinear"}[rank]
    upsampled = torch.nn.functional.interpolate(whole, case.image.shape[2:], mode=mode)
    assert windowed.shape == upsampled.shape
    assert_close(windowed, upsampled, 1e-8)


@every_rank
def test_batches_of_volumes(rank: int) -> None:
    case, target = global_context(rank), {"kind": "volume", "label": 1}
    other = torch.randn_like(case.image)
    methods = [
        "saliency",
        {"name": "smoothgrad", "of": "deep_lift", "samples": 2},
        "guided_backprop",
    ]
    both = explain(case.model, torch.cat([case.image, other]), methods, target)
    for row, image in enumerate((case.image, other)):
        alone = explain(case.model, image, methods, target)
        for key, attribution in alone.items():
            assert_close(both[key].map[row], attribution.map[0], EXACT, key)


@every_rank
@pytest.mark.parametrize("batch", [2, 5, 64])
def test_the_number_of_windows_at_once_does_not_matter(rank: int, batch: int) -> None:
    target = {"kind": "volume", "label": 1}
    single, several = global_context(rank), global_context(rank, batch=batch)
    for name in ("saliency", "deep_lift", "grad_cam"):
        assert_close(ours(several, name, target).map, ours(single, name, target).map, EXACT, name)


def test_follow_binds_on_the_blended_output() -> None:
    case = global_context(2)
    target = {"kind": "pixelwise", "label": 1, "follow": True}
    method = {"name": "integrated_gradients", "steps": 3, "quadrature": "right"}
    expected = torch.zeros_like(case.image)
    for step in (1, 2, 3):
        leaf = (case.image * step / 3).requires_grad_(True)
        output = blended(case, leaf).output
        score = (output[:, 1] * (output.argmax(1) == 1)).sum()
        expected += torch.autograd.grad(score, leaf)[0] * case.image / 3
    assert_close(ours(case, method, target).map, expected, EXACT)


def test_units_belong_to_one_window() -> None:
    case = global_context(2)
    with pytest.raises(TargetError, match="a unit of layer 'conv1' appears once per window"):
        ours(case, "saliency", {"kind": "unit", "layer": "conv1", "channel": 0})


def test_windows_without_weight_are_skipped() -> None:
    """A voxel in a corner needs the windows that see it, and no other."""
    case = global_context(2)
    calls = []
    case.network.register_forward_pre_hook(
        lambda _, inputs: calls.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    target = {"kind": "region", "label": 1, "voxel": (0, 0)}
    field = bound(case, target)
    calls.clear()
    attribution_map = explain(case.model, case.image, "saliency", target)["saliency"].map
    assert sum(calls) == 1
    assert_close(attribution_map, gradient(case, case.image, field.score), EXACT)


def test_one_window_over_everything_is_the_whole() -> None:
    case = exact(2)
    model = Model(case.network, window={"size": (60, 48), "blend": "constant"})
    more = ["guided_backprop", "deconvolution", {"name": "eigen_cam", "layer": LAYER}]
    methods = [*AT_THE_IMAGE, *AT_A_LAYER, *more, {"name": "guided_grad_cam", "layer": LAYER}]
    target = {"kind": "volume", "label": 1}
    windowed = explain(model, case.image, methods, target)
    whole = explain(case.network, case.image, methods, target)
    for key, attribution in whole.items():
        assert_close(windowed[key].map, attribution.map, 1e-10, key)


@pytest.mark.parametrize(("name", "approximate"), [("grad_cam", False), ("layer_cam", True)])
def test_a_cam_that_windows_approximate_has_a_warning(name: str, approximate: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    shown, box = torch.rand(1, 1, 12, 12), {"kind": "region", "label": 1, "box": [[2, 9]] * 2}
    model = Model(network, window={"size": 8, "overlap": 0.5})
    (whole,) = explain(network, shown, name, box).values()
    (windowed,) = explain(model, shown, name, box).values()
    assert not any("windows" in text for text in whole.stats.warnings)
    assert any("windows" in text for text in windowed.stats.warnings) is approximate
