"""Axioms: completeness, and closed forms on linear and one-dimensional models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import Linear, assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.models.model import Model

EXACT = 1e-8
every_task = pytest.mark.parametrize(
    ("task", "rank"), [(task, rank) for task in ("classifier", "segmenter") for rank in (2, 3)]
)
TARGETS: dict[str, list[Any]] = {
    "classifier": [
        {"kind": "class_score", "label": 1},
        {"kind": "class_score", "label": 2, "link": "log_odds"},
        {
            "kind": "contrast",
            "a": {"kind": "class_score", "label": 0},
            "b": {"kind": "class_score", "label": 1, "link": "probability"},
        },
    ],
    "segmenter": [
        {"kind": "pixelwise", "label": 1},
        {"kind": "pixelwise", "label": 2, "link": "probability"},
        {"kind": "volume", "label": 0},
    ],
}


def network(task: str, rank: int, act: type[nn.Module]) -> nn.Sequential:
    build = {"classifier": classifier, "segmenter": segmenter}[task]
    return build(rank, 2, act=act).double()


def scores(model: nn.Module, target: Any, batch: Tensor, seen: Tensor) -> Tensor:
    """S of a batch, with the field fixed on other images."""
    from voxplain.targets import parse_target

    with torch.no_grad():
        return parse_target(target).bind(model(seen)).score(model(batch))


@every_task
@pytest.mark.parametrize("act", [nn.Softplus, nn.Tanh, nn.GELU])
def test_integrated_gradients_are_complete(task: str, rank: int, act: type[nn.Module]) -> None:
    """On smooth networks 64 Gauss nodes integrate to rounding."""
    model, inputs = network(task, rank, act), images(rank, 2, 2).double()
    baseline = images(rank, 2, 3)[2].double() * 0.3
    methods = [
        {"name": "integrated_gradients", "steps": 64, "baseline": baseline},
        {"name": "layer_conductance", "layers": "conv1", "steps": 64, "baseline": baseline},
    ]
    for target in TARGETS[task]:
        attribution = explain(model, inputs, methods, target)["integrated_gradients"]
        changes = scores(model, target, inputs, inputs) - scores(
            model, target, baseline.expand_as(inputs), inputs
        )
        sums = attribution.map.flatten(1).sum(1)
        torch.testing.assert_close(sums, changes, rtol=EXACT, atol=EXACT)
        assert max(attribution.stats.completeness or [1.0]) < EXACT


@every_task
@pytest.mark.parametrize("act", [nn.ReLU, nn.Softplus])
def test_deep_lift_is_complete(task: str, rank: int, act: type[nn.Module]) -> None:
    model, inputs = network(task, rank, act), images(rank, 2, 2).double()
    references = images(rank, 2, 5)[2:].double()
    methods = [
        {"name": "deep_lift", "baseline": references[0]},
        {"name": "layer_deep_lift", "layers": ["conv1", "act2"], "baseline": references[0]},
        "deep_lift_shap",
        {"name": "layer_deep_lift_shap", "layers": ["conv1", "act2"]},
    ]
    for target in TARGETS[task]:
        attributions = explain(model, inputs, methods, target, references=references)
        at_image = scores(model, target, inputs, inputs)
        one = at_image - scores(model, target, references[:1].expand_as(inputs), inputs)
        several = torch.stack(
            [
                at_image - scores(model, target, other.expand_as(inputs), inputs)
                for other in references
            ]
        ).mean(0)
        for key, attribution in attributions.items():
            sums = attribution.map.flatten(1).sum(1)
            expected = several if "shap" in key else one
            torch.testing.assert_close(sums, expected, rtol=EXACT, atol=EXACT)
            stats = attribution.stats
            shares = stats.flow or [1 - part for part in stats.completeness or [1.0]]
            assert list(shares) == pytest.approx([1.0] * len(inputs), abs=EXACT)


@every_task
def test_conductance_is_complete_at_every_layer(task: str, rank: int) -> None:
    """At a layer without a bypass the map sums to S(x) - S(b)."""
    model, inputs = network(task, rank, nn.Softplus), images(rank, 2, 2).double()
    layers = ["conv1", "act1", "conv2", "act2"]
    method = {"name": "layer_conductance", "layers": layers, "steps": 400, "quadrature": "midpoint"}
    target = TARGETS[task][0]
    attributions = explain(model, inputs, method, target)
    changes = scores(model, target, inputs, inputs) - scores(
        model, target, torch.zeros_like(inputs), inputs
    )
    for layer in layers:
        sums = attributions[f"layer_conductance@{layer}"].map.flatten(1).sum(1)
        torch.testing.assert_close(sums, changes, rtol=1e-4, atol=1e-6)
    coarse = explain(model, inputs, {**method, "steps": 32, "quadrature": "gauss_legendre"}, target)
    for attribution in coarse.values():
        assert attribution.stats.completeness is None
        assert list(attribution.stats.flow or ()) == pytest.approx([1.0, 1.0], abs=0.01)


def test_conductance_of_the_input_of_the_first_layer_is_integrated_gradients() -> None:
    """There the value is linear along the path, and the reducer is the quadrature itself."""
    model, inputs = classifier(2, 2).double(), images(2, 2, 2).double()
    for quadrature in ("gauss_legendre", "left", "right", "midpoint", "trapezoid"):
        path = {"steps": 9, "quadrature": quadrature, "baseline": "minimum"}
        methods = [
            {"name": "layer_conductance", "layers": "conv1", "side": "input", **path},
            {"name": "integrated_gradients", **path},
        ]
        attributions = explain(model, inputs, methods, 1)
        assert_close(
            attributions["layer_conductance"].map, attributions["integrated_gradients"].map, 1e-12
        )


def test_conductance_of_one_path_in_closed_form() -> None:
    """S = tanh(2 x): its conductance is S(x) - S(0) at every layer of the chain."""
    chain = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh()).double()
    with torch.no_grad():
        chain[0].weight.fill_(2.0)
    image = torch.tensor([[0.8]], dtype=torch.float64)
    expected = torch.tanh(2 * image)
    for layer in ("0", "1"):
        method = {"name": "layer_conductance", "layers": layer, "steps": 64}
        attributions = explain(chain, image, method, {"kind": "class_score", "label": 1})
        tolerance = 1e-3 if layer == "0" else 1e-12  # at the end of the chain G is 1
        torch.testing.assert_close(
            attributions["layer_conductance"].map.flatten(),
            expected.flatten(),
            rtol=tolerance,
            atol=0,
        )


def test_completeness_measures_the_residual() -> None:
    """With few nodes on a network with kinks the residual is the error of the sum."""
    model, inputs = classifier(2, 2).double(), images(2, 2, 2).double()
    attributions = explain(model, inputs, {"name": "integrated_gradients", "steps": 3}, 1)
    attribution = attributions["integrated_gradients"]
    target = {"kind": "class_score", "label": 1}
    at_image = scores(model, target, inputs, inputs)
    at_baseline = scores(model, target, torch.zeros_like(inputs), inputs)
    missing = attribution.map.flatten(1).sum(1) - (at_image - at_baseline)
    expected = missing.abs() / (at_image - at_baseline).abs()
    assert attribution.stats.completeness == pytest.approx(expected.tolist(), rel=1e-6)
    assert attribution.stats.scores == pytest.approx(at_image.tolist())
    assert attribution.stats.baseline_scores == pytest.approx(at_baseline.tolist())


def test_black_and_white_completeness_is_about_the_mean_of_both() -> None:
    model, inputs = classifier(2, 2, act=nn.Tanh).double(), images(2, 2, 2).double()
    method = {"name": "integrated_gradients_black_white", "steps": 64}
    attribution = explain(model, inputs, method, 1)["integrated_gradients_black_white"]
    assert max(attribution.stats.completeness or [1.0]) < EXACT


SHAPE = (2, 3, 4)
LOGIT = {"kind": "class_score", "label": 1}


@pytest.mark.parametrize("shape", [SHAPE, (2, 2, 3, 4)])
class TestLinear:
    """On S = <w, x> + 1 every map has a closed form."""

    def both(self, shape: tuple[int, ...], method: Any, **more: Any) -> tuple[Attribution, Linear]:
        model = Linear(shape).double()
        self.shown = torch.randn(3, *shape, dtype=torch.float64)
        self.references = torch.randn(4, *shape, dtype=torch.float64)
        with untouched(model):
            attributions = explain(
                model, self.shown, method, LOGIT, references=self.references, **more
            )
        ((_, attribution),) = attributions.items()
        return attribution, model

    def test_gradients_are_the_weights(self, shape: tuple[int, ...]) -> None:
        for name in ("saliency", "guided_backprop", "deconvolution"):
            actual, model = self.both(shape, name)
            assert_close(actual.map, model.weight.expand(3, *shape), 1e-14, name)

    @pytest.mark.parametrize("baseline", ["zero", "minimum", "maximum", "mean", 0.5, (0.5, -1.0)])
    def test_path_and_deep_lift(self, shape: tuple[int, ...], baseline: Any) -> None:
        methods = ["integrated_gradients", "deep_lift"]
        for name in methods:
            actual, model = self.both(shape, {"name": name, "baseline": baseline})
            flat = self.shown.flatten(2)
            level = {
                "zero": torch.zeros(3, 2).double(),
                "minimum": flat.amin(2),
                "maximum": flat.amax(2),
                "mean": flat.mean(2),
            }
            fixed = torch.tensor(baseline if not isinstance(baseline, str) else 0).double()
            levels = level.get(baseline, fixed.expand(3, 2)) if isinstance(baseline, str) else fixed
            levels = levels.expand(3, 2).view(3, 2, *(1,) * (len(shape) - 1))
            assert_close(actual.map, (self.shown - levels) * model.weight, 1e-12, name)

    def test_expected_gradients_are_the_mean_over_the_drawn_references(
        self, shape: tuple[int, ...]
    ) -> None:
        """(x - mean r) w, with the references in the proportions in which they were drawn."""
        actual, model = self.both(shape, {"name": "expected_gradients", "samples": 400})
        differences = (self.shown[:, None] - self.references) * model.weight
        expected = differences.mean(1)
        error = differences.std(1) / 400**0.5
        assert ((actual.map - expected).abs() < 4.5 * error).all()
        assert not torch.allclose(actual.map, expected, rtol=1e-6)  # drawn, not enumerated

    def test_deep_lift_shap_is_the_exact_mean(self, shape: tuple[int, ...]) -> None:
        actual, model = self.both(shape, "deep_lift_shap")
        expected = (self.shown - self.references.mean(0)) * model.weight
        assert_close(actual.map, expected, 1e-12)

    def test_smoothgrad_of_a_linear_map_has_no_variance(self, shape: tuple[int, ...]) -> None:
        actual, model = self.both(shape, {"name": "smoothgrad", "of": "saliency", "samples": 4})
        assert_close(actual.map, model.weight.expand(3, *shape), 1e-14)
        actual, _ = self.both(shape, {"name": "vargrad", "of": "saliency", "samples": 4})
        assert actual.map.abs().max() < 1e-20


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 4, 8, 8)])
def test_gradient_shap_has_its_noise_in_the_difference(shape: tuple[int, ...]) -> None:
    """E[(x' - r) w] = (x - r) w, with the standard error of the mean of the noise."""
    model, inputs = Linear(shape).double(), torch.randn(1, *shape, dtype=torch.float64)
    inputs[:, 1] *= 10
    references = torch.zeros(2, *shape, dtype=torch.float64)
    method = {"name": "gradient_shap", "samples": 64, "sigma": 0.2}
    actual = explain(model, inputs, method, LOGIT, references=references)["gradient_shap"].map
    noise = (actual / model.weight - inputs)[0].flatten(1)
    spread = inputs[0].flatten(1)
    ranges = torch.quantile(spread, 0.995, dim=1) - torch.quantile(spread, 0.005, dim=1)
    torch.testing.assert_close(noise.std(1), 0.2 * ranges / 8, rtol=0.2, atol=0)
    assert (noise.mean(1).abs() < 4 * noise.std(1) / noise.shape[1] ** 0.5).all()


def test_references_never_include_the_image() -> None:
    """The image itself is no reference; half the samples would be zero otherwise."""
    model = Linear((1, 2, 2)).double()
    inputs = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    others = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    method = {"name": "deep_lift_shap"}
    given = torch.cat([others, inputs])
    actual = explain(model, inputs, method, LOGIT, references=given)["deep_lift_shap"].map
    for row, values in enumerate(actual):
        rest = torch.cat([others, inputs[1 - row : 2 - row]])
        assert_close(values, (inputs[row] - rest.mean(0)) * model.weight, 1e-12)


def test_noisy_copies_draw_references_of_their_own() -> None:
    """Each copy takes one reference; together they take all."""
    model, inputs = Linear((1, 2, 2)).double(), torch.randn(1, 1, 2, 2, dtype=torch.float64)
    references = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    inner = {"name": "expected_gradients", "samples": 1}
    method = {"name": "smoothgrad", "of": inner, "samples": 30, "sigma": 1e-9}
    attributions = explain(model, inputs, method, LOGIT, references=references)
    mean = inputs - attributions["smoothgrad_expected_gradients"].map / model.weight
    share = (mean - references[1]) / (references[0] - references[1])
    assert share.std() < 1e-6  # a mean of the two references ...
    assert 0.2 < float(share.mean()) < 0.8  # ... with a share of each


def test_precision_of_sums_does_not_depend_on_the_network() -> None:
    """Scores of a million voxels are summed in double precision."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(0.0)
    image = torch.full((1, 1, 1000, 1000), 0.1)
    attributions = explain(Model(model), image, "saliency", {"kind": "class_score", "label": 1})
    exact = 1e6 * float(torch.tensor(0.1, dtype=torch.float32))
    assert attributions["saliency"].stats.scores[0] == pytest.approx(exact, rel=1e-9)


@every_task
@pytest.mark.parametrize("name", ["expected_gradients", "gradient_shap"])
def test_expected_gradients_state_how_far_they_are_from_the_difference(
    task: str, rank: int, name: str
) -> None:
    """The mean of S(x') - S(r) over the lines that were drawn, with x' the image and its noise."""
    model, inputs = network(task, rank, nn.Softplus), images(rank, 2, 2).double()
    references = images(rank, 2, 5).double()[2:]
    target = TARGETS[task][1]
    found = explain(model, inputs, {"name": name, "samples": 9}, target, references=references)
    stats = found[name].stats
    assert stats.completeness is not None
    assert stats.baseline_scores is not None
    starts = scores(model, target, references.repeat(1, 1, *(1,) * rank), inputs[:1])
    assert float(starts.min()) <= stats.baseline_scores[0] <= float(starts.max())
    if name == "gradient_shap":
        return
    for row, (score, start) in enumerate(zip(stats.scores, stats.baseline_scores, strict=True)):
        total = float(found[name].map[row].double().sum())
        expected = abs(total / (score - start) - 1)
        assert stats.completeness[row] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_expected_gradients_of_a_linear_score_are_complete(rank: int) -> None:
    """Whatever lines are drawn, also between noisy images, and at a layer."""
    inputs = images(rank, 2, 2).double()
    model = Linear(tuple(inputs.shape[1:])).double()
    methods = ["expected_gradients", {"name": "gradient_shap", "sigma": 0.4, "samples": 7}]
    found = explain(model, inputs, methods, 1, references=images(rank, 2, 5).double()[2:])
    for attribution in found.values():
        assert attribution.stats.completeness == pytest.approx((0, 0), abs=EXACT)
