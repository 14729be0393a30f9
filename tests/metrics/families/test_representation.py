"""Stability against a layer: by hand, by another library, in windows, and at no extra maps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import bright, explained, reason, value
from networks import classifier, convolution, images, segmenter
from torch import Tensor, nn

from voxplain.engine.variants.perturbations import UniformNoise
from voxplain.metrics.families import robustness
from voxplain.metrics.families.representation import Representations
from voxplain.metrics.families.robustness import Neighbors
from voxplain.models.model import Model

RRS = "relative_representation_stability"
SCORE = {"kind": "class_score", "label": 1}
SEGMENT = {"kind": "pixelwise", "label": 1}
every_rank = pytest.mark.parametrize("rank", [2, 3])


@every_rank
@pytest.mark.parametrize(
    ("build", "target", "layer", "layers"),
    [
        (classifier, SCORE, None, 5),  # what enters the head, flat
        (classifier, SCORE, "conv1", 1),
        (segmenter, SEGMENT, None, 4),
        (segmenter, SEGMENT, "act1", 2),
    ],
)
def test_by_hand(rank: int, build: Any, target: Any, layer: str | None, layers: int) -> None:
    network, image = build(rank, 2).double(), images(rank, 2)[0].double()
    context = explained(network, image, "saliency", target=target)
    field = context.fields["saliency"]
    result = value(RRS, field, context, draws=3, layer=layer)
    query = Neighbors(UniformNoise(0.02), 3, ranked=False)
    steps = context.run_query(query)["saliency"]
    body = network[:layers]
    before = body(image[None]).detach()
    by_hand = []
    for draw, step in enumerate(steps):
        changed = UniformNoise(0.02).changed(image, context.input.key, draw)
        moved = float((body(changed[None]).detach() - before).norm() / before.norm())
        by_hand.append(step.map / moved)
    assert result.value == pytest.approx(max(by_hand), rel=1e-9)
    assert result.facts["layer"] == (f"layer '{layer}'" if layer else "what enters layer 'head'")


def test_the_representation_of_a_linear_score_is_the_image() -> None:
    image = bright(2, 1, 4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    context = explained(network, image, "input_x_gradient", target=SCORE)
    field = context.fields["input_x_gradient"]
    inputs = value("relative_input_stability", field, context).value
    assert value(RRS, field, context).value == pytest.approx(inputs, rel=1e-9)


class _Still(nn.Module):
    """A layer that sees the signs of the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.flatten(1).sign()) + image.flatten(1)[:, :2] ** 2


def test_a_layer_that_sees_no_change() -> None:
    context = explained(_Still().double(), bright(2, 1, 4), "saliency", target=SCORE)
    field = context.fields["saliency"]
    largest = value("max_sensitivity", field, context).value
    assert value(RRS, field, context).value == pytest.approx(largest / 1e-6, rel=1e-9)


def test_layers_are_named() -> None:
    context = explained(classifier(), images()[0], "saliency", target=SCORE)
    field = context.fields["saliency"]
    assert "conv1" in reason(RRS, field, context, layer="conv9")
    silent = copy.deepcopy(classifier())
    with torch.no_grad():
        silent.conv1.weight.zero_()
        silent.conv1.bias.zero_()
    of_silent = context.with_model(Model(silent))
    of_silent.fields = context.fields
    assert "is 0 for this image" in reason(RRS, field, of_silent, layer="conv1")


class _Supervised(nn.Module):
    """Two heads, of which the auxiliary one runs last; attention is called by keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.main, self.auxiliary = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        early = self.first(image).tanh()
        late = self.second(early).tanh()
        tokens = late.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(query=tokens, key=tokens, value=tokens)
        late = late + mixed.transpose(1, 2).reshape(late.shape)
        return self.main(late), self.auxiliary(early)


@pytest.mark.parametrize(("head", "expected"), [(0, "main"), (1, "auxiliary")])
def test_the_head_that_is_explained_counts(head: int, expected: str) -> None:
    torch.manual_seed(0)
    model = Model(_Supervised().eval(), head=head)
    context = explained(model, images()[0], "saliency", target=SEGMENT)
    result = value(RRS, context.fields["saliency"], context, draws=2)
    assert result.facts["layer"] == f"what enters layer '{expected}'"


def test_a_layer_that_is_called_by_keywords_is_passed_over() -> None:
    torch.manual_seed(0)
    model = Model(_Supervised().eval(), head=lambda output: output[0])
    model.network.main = nn.Identity()  # so that attention is the last of its branch
    context = explained(model, images()[0], "saliency", target=SEGMENT)
    result = value(RRS, context.fields["saliency"], context, draws=2)
    assert result.facts["layer"] == "what enters layer 'second'"


class _Gated(nn.Module):
    """The last layer before the head scales the features and does not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(1, 3)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv(image).tanh()
        return features * self.scale(features.new_ones(1)).view(3, 1, 1)


def test_a_layer_that_does_not_see_the_image_is_no_representation() -> None:
    torch.manual_seed(0)
    context = explained(_Gated(), images()[0], "saliency", target=SEGMENT)
    result = value(RRS, context.fields["saliency"], context, draws=2)
    assert result.facts["layer"] == "what enters layer 'conv'"


@every_rank
def test_windows_count_a_cell_once(rank: int) -> None:
    """Pointwise, then at half the resolution: as the whole volume, where windows fit the stride."""
    torch.manual_seed(0)
    conv = convolution(rank)
    up = nn.Upsample(scale_factor=2, mode="nearest")
    network = nn.Sequential(conv(2, 3, 1), nn.Tanh(), conv(3, 4, 2, 2), up, conv(4, 3, 1))
    network, image = network.double().eval(), images(rank, 2, 1, 8)[0].double()
    window = {"size": 4, "overlap": 0.5, "blend": "constant"}
    for layer, same in (("1", 1e-12), ("2", 1e-12), (None, 1e-12)):
        changes = []
        for model in (Model(network), Model(network, window=window)):
            context = explained(model, image, "saliency", target=SEGMENT)
            query = Representations(UniformNoise(0.02), 3, layer)
            changes.append(context.run_query(query).changes)
        assert changes[1] == pytest.approx(changes[0], rel=same), layer


@pytest.mark.filterwarnings("ignore:the window")
def test_windows_larger_than_the_volume_do_not_count_their_padding() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Tanh(), nn.Conv2d(3, 2, 1)).double().eval()
    image = bright(2, 1, 6)
    changes = []
    for model in (Model(network), Model(network, window={"size": 8})):
        context = explained(model, image, "saliency", target=SEGMENT)
        field = context.fields["saliency"]
        changes.append(value(RRS, field, context, draws=2).value)
    assert changes[1] == pytest.approx(changes[0], rel=1e-9)


def test_neighbors_are_explained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    again = robustness.explain_again

    def counted(context: Any, images: Tensor, **options: Any) -> dict[str, Tensor]:
        calls.append(len(images))
        return again(context, images, **options)

    monkeypatch.setattr(robustness, "explain_again", counted)
    context = explained(classifier(), images()[0], "saliency", "input_x_gradient", target=SCORE)
    for metric in ("max_sensitivity", RRS, "relative_input_stability"):
        for field in context.fields.values():
            value(metric, field, context, draws=3)
    assert calls == [3]


WEIGHTS = torch.tensor([1.0, -1.0]).repeat(18)


class _Signs(nn.Module):
    """Score <w, (2 x)^3>, w of +-1: on an image of +-1 layer and gradient have one size each."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(1, 1, 1, bias=False)
        self.flat, self.head = nn.Flatten(), nn.Linear(36, 3)
        with torch.no_grad():
            self.hidden.weight.fill_(2)
            self.head.weight.copy_(WEIGHTS.expand(3, -1))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.flat(self.hidden(image)) ** 3)


def test_where_every_number_has_the_same_size_the_other_library_agrees() -> None:
    """Quantus divides number by number, as the paper writes it; norms are then the same."""
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    signs = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0)).sign()
    context = explained(_Signs(), signs, "saliency", target=SCORE)
    field, drawn = context.fields["saliency"], iter(range(4))

    def noise(arr: Any, **_: Any) -> Any:
        changed = UniformNoise(0.02).changed(signs, context.input.key, next(drawn))
        return changed.numpy().reshape(arr.shape)

    theirs = quantus.RelativeRepresentationStability(
        nr_samples=4,
        perturb_func=noise,
        layer_names=["hidden"],
        return_nan_when_prediction_changes=False,
        disable_warnings=True,
    )

    def gradient(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        return 24 * np.square(inputs) * WEIGHTS.view(6, 6).numpy()

    (expected,) = theirs(
        model=_Signs().eval(),
        x_batch=signs[None].numpy(),
        y_batch=np.array([1]),
        a_batch=field.map[None].numpy(),
        explain_func=gradient,
        device="cpu",
    )
    mine = value(RRS, field, context, draws=4, layer="hidden").value
    assert mine == pytest.approx(float(expected), rel=1e-4)
