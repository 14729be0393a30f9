"""Games and surrogates of a windowed network are those of the whole volume."""

from __future__ import annotations

from typing import Any

import pytest
from networks import assert_close
from windowed_cases import Case, exact, global_context

from voxplain.attribution import explain
from voxplain.engine.masks import Coalitions
from voxplain.models.model import Model

TARGETS: dict[str, dict[str, Any]] = {
    "pixelwise": {"kind": "pixelwise", "label": 1},
    "volume": {"kind": "volume", "label": 1},
}
METHODS: list[dict[str, Any]] = [
    {"name": "lime", "regions": 8, "samples": 8, "distance": "image"},
    {"name": "kernel_shap", "regions": 8, "samples": 16},
    {"name": "shapley_value_sampling", "regions": 8, "samples": 2},
    {"name": "channel_share"},
    {"name": "sobol_attribution", "regions": 4, "samples": 2},
    {"name": "hsic_attribution", "regions": 8, "samples": 16},
    {"name": "piecewise_linear_surrogate", "regions": 8, "samples": 12},
]


@pytest.mark.parametrize(("rank", "target"), [(2, "pixelwise"), (2, "volume"), (3, "volume")])
def test_windows_with_a_halo_give_the_maps_of_the_whole_volume(rank: int, target: str) -> None:
    case, methods = exact(rank), METHODS[:: 3 if rank == 2 else 4]
    whole = explain(Model(case.network), case.image, methods, TARGETS[target])
    windowed = explain(case.model, case.image, methods, TARGETS[target])
    for name, attribution in windowed.items():
        assert_close(attribution.map, whole[name].map, 1e-9, name)


def test_only_touched_windows_change_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps equal those of computing every window for every coalition."""
    case: Case = global_context(2)
    attributions = explain(case.model, case.image, METHODS, TARGETS["volume"])

    def everywhere(masks: Any, index: int, layout: Any) -> Any:
        return iter(layout.positions)

    monkeypatch.setattr(Coalitions, "touched", everywhere)
    again = explain(case.model, case.image, METHODS, TARGETS["volume"])
    for name in attributions:
        assert_close(again[name].map, attributions[name].map, 1e-9, name)
