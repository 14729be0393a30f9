"""The page of metrics is what the registry says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from script import load_script

from voxplain.metrics import metrics
from voxplain.metrics.card import FAMILIES, metric_card, parameters_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("write_metrics_page")


def test_the_page_is_in_step_with_the_registry(script: ModuleType) -> None:
    written = (ROOT / "docs/metrics.md").read_text("utf-8")
    if written != script.page():
        pytest.fail(f"docs/metrics.md is out of date; run: {script.COMMAND}")


def test_every_metric_has_an_entry_and_says_what_it_is(script: ModuleType) -> None:
    page = script.page()
    for name in metrics:
        kind = metrics.get(name)
        own = kind.__module__.startswith("voxplain.")
        assert (f"\n### {name}\n" in page) is own
        assert kind.meaning().endswith("."), name
        assert kind.family in FAMILIES, f"{name}: {kind.family!r} is not in metrics/card.py"
        for parameter in parameters_of(kind):
            assert parameter.meaning, f"{name}.{parameter.name} is not explained"
    assert "PydanticUndefined" not in page


def test_costs_are_those_of_the_definitions() -> None:
    def cost(name: str) -> str:
        return metric_card(metrics.get(name)).cost

    assert cost("deletion") == "33 per map"
    assert cost("morf_lerf_gap") == "66 per map"
    assert cost("infidelity") == "64 for all maps"
    assert cost("max_sensitivity") == "8 explanations"
    assert cost("parameter_randomization") == "36 explanations"
    assert cost("roc_auc") == "none"
