"""What fits only in part is a failure of that part; what fits nowhere is refused beforehand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tiny import NETWORK, TinyStudy

from voxplain.errors import ModelError, TargetError, VoxplainWarning
from voxplain.study import Study, check_study, run_study
from voxplain.study.planning import network_calls

MORE = """

def elsewhere():
    net = build()
    with torch.no_grad():
        net.head.bias[1] = -50.0
    return net


class Slow(Bright):
    def forward(self, x):
        import time
        time.sleep(1000)


def slow():
    return Slow()
"""


@pytest.fixture
def models(tiny: TinyStudy) -> list[dict[str, Any]]:
    """Three networks, of which the second predicts class 1 nowhere."""
    (tiny.folder / "net.py").write_text(NETWORK + MORE)
    names = {"first": "build", "second": "elsewhere", "third": "build"}
    return [{"name": name, "factory": f"net.py:{factory}"} for name, factory in names.items()]


def test_one_network_that_does_not_predict_the_class_leaves_the_others(
    tiny: TinyStudy, models: list[dict[str, Any]]
) -> None:
    study = Study.load(tiny.write(models=models, methods=["saliency"]))
    with pytest.warns(VoxplainWarning, match="model second, target .* is predicted nowhere"):
        run = run_study(study, trust=True)
    assert run.exit_code == 1
    assert {record.model for record in run.manifest.maps} == {"first", "third"}
    assert {task.model for task in run.failed} == {"second"}
    assert all("predicted nowhere" in str(task.reason) for task in run.failed)


def test_a_class_that_no_network_predicts_is_refused(
    tiny: TinyStudy, models: list[dict[str, Any]]
) -> None:
    with pytest.raises(TargetError, match="predicted nowhere"):
        check_study(Study.load(tiny.write(models=models[1:2])), trust=True)
    targets = [{"kind": "pixelwise", "label": 1}, {"kind": "pixelwise", "label": 2}]
    tiny.config.pop("target")
    with pytest.raises(TargetError, match="class 2 is predicted nowhere"):
        check_study(Study.load(tiny.write(models=models, targets=targets)), trust=True)


def test_a_network_that_hangs_ends_the_check(
    tiny: TinyStudy, models: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_calls, "_SHORTEST_LIMIT", 0.3)
    models[0]["factory"] = "net.py:slow"
    study = Study.load(tiny.write(models=models[:1], run={"timeout": 0.2}))
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"model first: no answer to one image after 0\.3 s"):
        check_study(study, trust=True)
    assert time.perf_counter() - start < 5
