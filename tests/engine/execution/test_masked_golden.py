"""Feature ablation of model M by hand, in every setting that must not change a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import SPELLINGS, ModelM, Spelling, untouched
from torch import Tensor

from voxplain.attribution import explain
from voxplain.engine.memory import ForwardBudget

IMAGE = torch.tensor([20.0, 50.0, 30.0])
EACH: dict[str, Any] = {"kind": "blocks", "size": 1}
PAIR = torch.tensor([1, 1, 2])
CASES = [
    pytest.param(EACH, 0, (80, 200, 120), id="each"),
    pytest.param(PAIR, 0, (280, 280, 120), id="pair"),
    pytest.param(3 - PAIR, 0, (280, 280, 120), id="pair-other-numbers"),
    pytest.param(PAIR, 4, (248, 248, 104), id="pair-filled-with-4"),
]
every_case = pytest.mark.parametrize(("regions", "fill", "expected"), CASES)


def _shaped(values: Tensor, rank: int) -> Tensor:
    """Three values as an image of one row, or as a volume (1, 1, 3)."""
    return values.view(*(1,) * (rank - 1), 3)


def _ablation(regions: Any, fill: float, rank: int) -> dict[str, Any]:
    drawn = {"labels": _shaped(regions, rank)} if isinstance(regions, Tensor) else None
    return {
        "name": "feature_ablation",
        "regions": {"kind": "labels", **drawn} if drawn else regions,
        "fill": {"kind": "constant", "value": fill},
    }


def _explained(image: Tensor, method: dict[str, Any], spelling: Spelling = "module") -> Tensor:
    network = ModelM(spelling).to(image.dtype).eval()
    with untouched(network):
        attributions = explain(network, image, {**method, "label": "ablation"}, 0)
    return attributions["ablation"].map


@every_case
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("other_count", [0, 7])
def test_feature_ablation(
    regions: Any,
    fill: float,
    expected: tuple[float, ...],
    rank: int,
    dtype: torch.dtype,
    other_count: int,
) -> None:
    image = _shaped(IMAGE, rank)[None, None].to(dtype)
    others = torch.rand(other_count, *image.shape[1:], dtype=dtype)
    maps = _explained(torch.cat([others, image]), _ablation(regions, fill, rank))
    assert maps[-1].flatten().tolist() == pytest.approx(expected, rel=1e-6)


@every_case
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(
    regions: Any, fill: float, expected: tuple[float, ...], spelling: Spelling
) -> None:
    maps = _explained(_shaped(IMAGE, 2)[None, None], _ablation(regions, fill, 2), spelling)
    assert maps.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_perturbation_batch_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(ForwardBudget):
        def __init__(self, *_: object) -> None:
            self.size, self._is_measured = size, True

    monkeypatch.setattr("voxplain.engine.execution.masked_runner.ForwardBudget", Fixed)
    maps = _explained(_shaped(IMAGE, 3)[None, None], _ablation(EACH, 0, 3))
    assert maps.flatten().tolist() == pytest.approx([80, 200, 120], rel=1e-6)


def test_a_batch_of_two_with_regions_of_their_own() -> None:
    """Scores of one image do not depend on the other, nor values on the numbers of labels."""
    batch = torch.tensor([[2.0, 10, 3], [20, 50, 30]]).view(2, 1, 1, 3)
    for labels in (PAIR, 3 - PAIR):
        maps = _explained(batch, _ablation(labels, 0, 2)).flatten(1).tolist()
        assert maps[0] == pytest.approx([41, 41, 12], rel=1e-6)
        assert maps[1] == pytest.approx([280, 280, 120], rel=1e-6)


def test_channels_last_and_strided_inputs() -> None:
    image = _shaped(IMAGE, 3)[None, None]
    wide = torch.full((1, 1, 1, 1, 6), 99.0)
    wide[..., ::2] = image
    for shown in (image.contiguous(memory_format=torch.channels_last_3d), wide[..., ::2]):
        maps = _explained(shown, _ablation(PAIR, 4, 3))
        assert maps.flatten().tolist() == pytest.approx([248, 248, 104], rel=1e-6)


def test_two_methods_over_the_same_masks_run_them_once() -> None:
    calls = []
    network = ModelM().eval()
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    image, method = _shaped(IMAGE, 2)[None, None], _ablation(EACH, 0, 2)
    explain(network, image, method, 0)
    alone = sum(calls)
    calls.clear()
    attributions = explain(network, image, [method, {**method, "label": "again"}, "saliency"], 0)
    # The image alone and beside another, and one forward per region.
    assert alone == 3 + 3
    assert sum(calls) == 1 + 3 + 1  # saliency has a pass of its own
    assert torch.equal(attributions["again"].map, attributions["feature_ablation"].map)
    assert attributions["again"].stats.shared_with == ("feature_ablation",)


def test_regions_are_listed_by_name_and_size() -> None:
    names = {1: "left", 2: "right"}
    regions = {"kind": "labels", "labels": PAIR.view(1, 3), "names": names}
    method = {"name": "feature_ablation", "regions": regions, "fill": 0}
    attribution = explain(ModelM().eval(), IMAGE.view(1, 1, 1, 3), method, 0)["feature_ablation"]
    (findings,) = attribution.stats.findings
    assert findings["regions"] == [
        {"name": "left", "value": pytest.approx(280), "voxels": 2},
        {"name": "right", "value": pytest.approx(120), "voxels": 1},
    ]
