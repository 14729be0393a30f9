"""Factories give networks in training mode; every analysis asks them in evaluation mode."""

from __future__ import annotations

import json
from typing import Any

from test_analyses_of_networks import SMALL
from tiny import NETWORK, TinyStudy

from voxplain.analyses import RESULT
from voxplain.study import Run, Study, run_study

NORMED = NETWORK.replace(
    "        self.act = nn.ReLU()",
    "        self.norm = nn.BatchNorm3d(4)\n        self.drop = nn.Dropout(0.5)\n"
    "        self.act = nn.ReLU()",
).replace(
    "self.act(self.features(x))",
    "self.act(self.drop(self.norm(self.features(x))))",
).replace(
    "def build(channels=1) -> nn.Module:\n    net = Bright(channels)",
    "def build(training: bool, channels=1) -> nn.Module:\n    net = Bright(channels)\n"
    "    net.train(training)",
).replace(
    "    with torch.no_grad():\n        for part in net.parameters():\n            part.zero_()",
    "    with torch.no_grad():\n        for part in net.parameters():\n            part.zero_()\n"
    "        net.norm.weight += 1\n        net.norm.running_mean += 0.2",
)  # fmt: skip
NAMES = [name for name in SMALL if name != "uncertainty"]


def _run(blobs: TinyStudy, training: bool) -> Run:
    models = [{"name": "net", "factory": "normed_net:build", "arguments": {"training": training}}]
    asked = [{"name": name, **SMALL[name]} for name in NAMES]
    output = str(blobs.folder / f"run-{training}")
    target: dict[str, Any] = {"kind": "pixelwise", "label": 1}
    return run_study(
        Study.load(blobs.write(analyses=asked, models=models, target=target, output=output))
    )


def _timeless(value: Any) -> Any:
    """Without how long something took."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key != "seconds"}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _results(run: Run) -> dict[str, Any]:
    return {
        record.label: _timeless(json.loads((run.folder / record.folder / RESULT).read_text()))
        for record in run.manifest.analyses
    }


def test_modes_of_a_network_change_no_result(blobs: TinyStudy) -> None:
    assert "BatchNorm3d" in NORMED
    (blobs.packages / "normed_net.py").write_text(NORMED, encoding="utf-8")
    in_training, in_evaluation = _run(blobs, True), _run(blobs, False)
    assert [task.reason for task in in_evaluation.failed] == []
    assert [task.reason for task in in_training.failed] == []
    found, expected = _results(in_training), _results(in_evaluation)
    assert {*expected} == {*NAMES}
    for name in NAMES:
        assert found[name] == expected[name], name
