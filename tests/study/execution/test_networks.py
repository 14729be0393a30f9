"""The networks of a study: how they differ, and which of them are only compared with."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tiny import NETWORK, TinyStudy

from voxplain.errors import ConfigError
from voxplain.records.scores import Scores
from voxplain.study import Run, Study, check_study, run_study
from voxplain.study.reevaluate import evaluate_run

METRICS = ["seed_agreement", "architecture_agreement", "data_randomization"]
BARE = """
import torch


class Squares(torch.nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return torch.cat([0 * x + 1, self.sign * x * x], 1)


def build(sign=1) -> torch.nn.Module:
    return Squares(sign)
"""


def _weights(tiny: TinyStudy, name: str, scale: float) -> str:
    """Weights whose scores of class 1 are scaled, so that maps are alike or opposite."""
    import tiny_net  # type: ignore[import-not-found]

    state = {key: value.clone() for key, value in tiny_net.build().state_dict().items()}
    state["head.weight"] *= scale
    save_file(state, tiny.folder / name)
    return name


def _networks(tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The network under study, another seed, another architecture, and permuted labels."""
    wide = NETWORK.replace("nn.Conv3d(channels, 4", "nn.Conv3d(channels, 6").replace(
        "nn.Conv3d(4, 3", "nn.Conv3d(6, 3"
    )
    (tiny.packages / "wide_net.py").write_text(wide, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "wide_net", raising=False)
    (net,) = tiny.config["models"]
    return {
        "net": net,
        "twin": {**net, "name": "twin", "weights": _weights(tiny, "twin.safetensors", 2.0)},
        "wide": {"name": "wide", "factory": "wide_net:build"},
        "permuted": {
            **net,
            "name": "permuted",
            "weights": _weights(tiny, "permuted.safetensors", -1.0),
            "labels": "permuted",
        },
    }


def _run(tiny: TinyStudy, models: list[dict[str, Any]], metrics: list[str] = METRICS) -> Run:
    cases = tiny.config["cases"][:1]
    file = tiny.write(
        cases=cases, models=models, metrics=metrics, methods=["saliency"], run={"controls": False}
    )
    return run_study(Study.load(file))


def _compared(run: Run) -> dict[tuple[str, str], set[str]]:
    """The networks that the maps of each network were compared with, by network and metric."""
    rows = Scores.read(run.folder / "metrics.parquet")
    return {(row.model, row.metric): set(row.facts.get("networks", row.facts)) for row in rows}


def test_parameters_tell_seeds_from_architectures(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    run = _run(tiny, list(networks.values()))
    assert run.exit_code == 0
    compared = _compared(run)
    assert compared["net", "seed_agreement"] == {"twin"}
    assert compared["net", "architecture_agreement"] == {"wide"}
    assert compared["net", "data_randomization"] == {"permuted"}
    assert compared["wide", "seed_agreement"] == set()
    assert compared["wide", "architecture_agreement"] == {"net", "twin"}
    assert compared["wide", "data_randomization"] == set()  # its architecture has no such network
    rows = [row for row in Scores.read(run.folder / "metrics.parquet") if row.model == "net"]
    values = {row.metric: row.value for row in rows}
    assert values["seed_agreement"] == pytest.approx(1)
    assert values["data_randomization"] == pytest.approx(-1)


def test_any_network_may_be_only_compared_with(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    run = _run(tiny, [networks["net"], {**networks["twin"], "explained": False}])
    assert {record.model for record in run.manifest.maps} == {"net"}
    assert _compared(run)["net", "seed_agreement"] == {"twin"}
    assert {record.name: record.explained for record in run.manifest.models} == {
        "net": True,
        "twin": False,
    }
    page = Path(run.write_report()).read_text(encoding="utf-8")
    assert page.count(", only compared with</td>") == 1


def test_a_network_of_permuted_labels_is_only_compared_with(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    run = _run(tiny, [networks["permuted"], networks["net"]])
    assert {record.model for record in run.manifest.maps} == {"net"}
    assert {record.model for record in run.manifest.predictions} == {"net"}
    labels = {record.name: record.labels for record in run.manifest.models}
    assert labels == {"permuted": "permuted", "net": "true"}
    page = Path(run.write_report()).read_text(encoding="utf-8")
    assert re.search(r"1 case,\s+1 model,\s+1 map", page)
    assert page.count(", trained on permuted labels</td>") == 1


def test_names_of_architectures_decide_where_there_are_two(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    named = {
        "net": {**networks["net"], "architecture": "unet"},
        "twin": {**networks["twin"], "architecture": "other"},
        "wide": {**networks["wide"], "architecture": "unet"},
        "permuted": networks["permuted"],
    }
    compared = _compared(_run(tiny, list(named.values())))
    assert compared["net", "seed_agreement"] == {"wide"}
    assert compared["net", "architecture_agreement"] == {"twin"}
    assert compared["net", "data_randomization"] == {"permuted"}


def test_the_plan_counts_an_explanation_per_network(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    third = {**networks["twin"], "name": "third"}
    file = tiny.write(models=[*networks.values(), third], metrics=METRICS, methods=["saliency"])
    checked = check_study(Study.load(file))
    streams = {task.combination.model: task.streams for task in checked.plan.evaluations}
    passes = {task.combination.model: task.passes for task in checked.plan.evaluations}
    assert streams["net"] == ("all maps 4 times again",)  # two seeds, wide and permuted
    assert streams["wide"] == ("all maps 3 times again",)
    assert (passes["net"], passes["wide"]) == (4, 3)


def test_another_role_is_another_score(tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished scores are kept only as long as the networks mean the same."""
    networks = _networks(tiny, monkeypatch)
    pair = [networks["net"], networks["twin"]]
    assert _compared(_run(tiny, pair))["net", "seed_agreement"] == {"twin"}
    named = [{**model, "architecture": model["name"]} for model in pair]
    compared = _compared(_run(tiny, named))
    assert compared["net", "seed_agreement"] == set()
    assert compared["net", "architecture_agreement"] == {"twin"}


def test_a_network_of_permuted_labels_may_join_a_finished_run(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _networks(tiny, monkeypatch)
    run = _run(tiny, [networks["net"]], ["data_randomization"])
    assert _compared(run)["net", "data_randomization"] == set()
    study = Study.load(tiny.write(models=[networks["net"], networks["permuted"]]))
    result = evaluate_run(run.folder, study)
    assert not result.failures
    assert result.scores.values() == pytest.approx([-1])


@pytest.mark.parametrize("word", [True, "true"])
def test_true_is_a_word(tiny: TinyStudy, word: object) -> None:
    study = Study.load(tiny.write(models=[{**tiny.config["models"][0], "labels": word}]))
    assert study.models[0].labels == "true"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": "random"}, r"models\[0\].labels: "),
        ({"labels": False}, r"models\[0\].labels: "),
        ({"architecture": ""}, r"models\[0\].architecture: "),
        ({"labels": "permuted"}, "models: all of them were trained on permuted labels"),
    ],
)
def test_mistakes_name_their_place(tiny: TinyStudy, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Study.load(tiny.write(models=[{**tiny.config["models"][0], **changed}]))
    assert len(str(caught.value).splitlines()) == 1


def test_networks_without_parameters_may_be_either(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny.packages / "bare_net.py").write_text(BARE, encoding="utf-8")
    models = [
        {"name": "one", "factory": "bare_net:build"},
        {"name": "two", "factory": "bare_net:build"},
        {"name": "three", "factory": "bare_net:build", "arguments": {"sign": -1}},
    ]
    models[2]["labels"] = "permuted"
    compared = _compared(_run(tiny, models))
    assert compared["one", "seed_agreement"] == compared["one", "architecture_agreement"] == {"two"}
    assert compared["one", "data_randomization"] == {"three"}
