"""The precision that a manifest states is that in which the passes ran."""

from __future__ import annotations

from typing import Any

import pytest
from test_run import go
from tiny import TinyStudy

from voxplain.records.manifest import Manifest
from voxplain.records.sidecar import Sidecar


def precisions(tiny: TinyStudy) -> dict[str, str]:
    """By method, after a look at the sidecars, which say the same."""
    manifest = Manifest.read(tiny.run)
    for record in manifest.maps:
        sidecar = Sidecar.model_validate_json((tiny.run / record.sidecar).read_bytes())
        assert record.precision == sidecar.model.precision
    return {record.method: record.precision for record in manifest.maps}


@pytest.mark.parametrize(("least", "ran"), [(0.5, "bfloat16"), (1.1, "float32")])
def test_half_precision_that_is_not_used_is_not_stated(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, least: float, ran: str
) -> None:
    monkeypatch.setattr("voxplain.engine.execution.trial.LEAST_AGREEMENT", least)
    go(tiny, run={"precision": "bfloat16"}, methods=["saliency"])
    assert precisions(tiny) == {"saliency": ran}
    assert Manifest.read(tiny.run).models[0].precision == ran


def test_several_precisions_are_joined_and_kept_by_a_resumed_run(tiny: TinyStudy) -> None:
    methods: list[Any] = ["saliency", {"name": "deep_lift", "precision": "float64"}]
    other = {**tiny.config["models"][0], "name": "other", "labels": "permuted"}
    go(tiny, methods=methods, models=[tiny.config["models"][0], other])
    found = precisions(tiny)
    assert found == {"saliency": "float32", "deep_lift": "float64"}
    stated = {model.name: model.precision for model in Manifest.read(tiny.run).models}
    assert stated == {"net": "float32 and float64", "other": ""}
    before = Manifest.read(tiny.run).models
    _, recorder = go(tiny)
    assert not recorder.computed
    assert Manifest.read(tiny.run).models == before


def test_the_manifest_states_every_family_with_its_agreement(tiny: TinyStudy) -> None:
    methods: list[Any] = ["saliency", "lrp", {"name": "occlusion", "window": 4, "stride": 2}]
    go(tiny, run={"precision": "bfloat16"}, methods=methods, metrics=["faithfulness_correlation"])
    manifest = Manifest.read(tiny.run)
    families = manifest.models[0].families
    assert families.keys() == {"gradients", "lrp", "masks", "metrics"}
    for family in families.values():
        assert family.agreement is not None
        assert ("float32" in family.precision) == (family.agreement < 0.99)  # in either case
    assert {name for record in manifest.maps for name in record.families} <= families.keys()
    go(tiny)
    assert Manifest.read(tiny.run).models[0].families == families


@pytest.mark.parametrize(
    ("offload", "said"),
    [("always", '"offloaded": true'), ("recompute", "no part of the network that may run twice")],
)
def test_a_run_that_is_to_spare_memory_says_what_it_did(
    tiny: TinyStudy, offload: str, said: str
) -> None:
    """The network has two convolutions, of which nothing can be spared by recomputation."""
    go(tiny, run={"offload": offload}, methods=["saliency"])
    manifest = Manifest.read(tiny.run)
    sidecars = [(tiny.run / record.sidecar).read_text() for record in manifest.maps]
    assert sidecars
    assert all(said in text for text in sidecars)
