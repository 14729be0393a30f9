"""Every analysis of a study: its results, its page, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import TinyStudy

from voxplain.analyses import RESULT, analyses
from voxplain.errors import ConfigError
from voxplain.records.analysis_page import AnalysisPage
from voxplain.study import Run, Study, check_study, run_study
from voxplain.zoo import unet3d

SMALL: dict[str, dict[str, Any]] = {
    "dissection": {
        "layers": ["act"],
        "cards": 2,
        "exemplars": 1,
        "random_network": False,
        "accentuated": 1,
        "accentuation_steps": 8,
    },
    "uncertainty": {"samples": 3, "cards": 1},
    "visualization": {
        "methods": [{"name": "activation_maximization", "steps": 16}],
        "units": ["act:0", 1],
        "reliability": False,
    },
    "trails": {
        "layers": ["features", "act"],
        "units": 1,
        "null_sets": 3,
        "random_trails": 3,
        "trails": 1,
        "smallest_iou": 0.01,
        "random_network": False,
    },
    "errors": {"layers": ["act"], "most": 1, "draws": 3, "corrections": 1, "units": 2},
    "interventions": {
        "layers": ["act"],
        "units": 1,
        "null_sets": 3,
        "smallest_iou": 0.01,
        "swaps": ["removal"],
        "classes": [1],
    },
    "concept_sensitivity": {"layers": ["act"], "random_directions": 39},
    "concept_directions": {"layer": "act", "random_network": False},
    "discovery": {"layer": "act", "most": 2, "cards": 1, "accentuated": 0},
    "sparse_directions": {
        "layer": "act",
        "active": 1,
        "steps": 20,
        "seeds": 1,
        "cards": 2,
        "exemplars": 1,
        "accentuated": 1,
        "accentuation_steps": 8,
        "random_network": False,
        "random_directions": 39,
    },
}


def done(tiny: TinyStudy, *names: str, **changes: Any) -> Run:
    asked = [{"name": name, **SMALL[name]} for name in names]
    return run_study(Study.load(tiny.write(analyses=asked, **changes)))


def parts(run: Run) -> dict[str, tuple[Any, AnalysisPage, Path]]:
    """Result, page and folder of every analysis, by its label."""
    found = {}
    for record in run.manifest.analyses:
        folder = run.folder / record.folder
        result = json.loads((folder / RESULT).read_text())
        found[record.label] = (result, AnalysisPage.read(folder), folder)
    return found


def test_there_is_a_small_case_of_every_analysis() -> None:
    assert {*SMALL} == {*analyses}


def test_units_are_dissected_against_the_concepts_of_the_study(blobs: TinyStudy) -> None:
    run = done(blobs, "dissection")
    assert not run.failed
    result, page, folder = parts(run)["dissection"]
    best = max(
        (pair for pair in result["pairs"] if pair["concept"] == "blob"),
        key=lambda pair: (pair["origin"] == "layer", pair["selection_iou"]),
    )
    assert best["iou"] > 0.5  # the units are smoothed copies of the image
    assert "2 patients" in page.lead[0]
    assert [row[0] for row in page.tables[0].rows] == ["blob", "blob ring 6mm"]
    assert any(best["unit"] in card.title for card in page.cards)
    for card in page.cards:
        assert all((folder / figure.file).is_file() for figure in card.figures)
        assert any(name == "formula" for name, _ in card.facts)
    assert (folder / "units.parquet").is_file()


def test_uncertainty_is_mapped_for_every_case(blobs: TinyStudy) -> None:
    run = done(blobs, "uncertainty", target=None)
    assert not run.failed
    result, page, folder = parts(run)["uncertainty"]
    assert [case["case"] for case in result["cases"]] == ["a", "b", "c", "d"]
    assert all(case["quality"] for case in result["cases"])
    for kind in ("total", "aleatoric", "epistemic"):
        assert (folder / f"a_desc-uncertainty-{kind}_map.nii.gz").is_file()
    assert len(page.cards) == 1
    assert any(str(row[0]).startswith("AUPRC of errors") for row in page.tables[0].rows)


def test_units_are_visualized_from_a_case(blobs: TinyStudy) -> None:
    run = done(blobs, "visualization")
    assert not run.failed
    result, page, folder = parts(run)["visualization"]
    assert [each["unit"] for each in result] == ["act:0", "class-1"]
    unit = result[0]["images"][0]
    assert unit["score"] > unit["start"]
    assert len(page.cards) == 2
    assert (folder / page.cards[0].figures[0].file).is_file()


def test_concepts_are_followed_to_the_class(blobs: TinyStudy) -> None:
    run = done(blobs, "trails")
    assert not run.failed
    result, page, folder = parts(run)["trails"]
    assert result["layers"][-1] == "output"
    assert page.graph is not None
    assert {node.column for node in page.graph.nodes} == set(range(len(result["layers"])))
    assert len(page.cards) == len(result["trails"]) == 1
    files = {each.name for each in folder.iterdir()}
    assert {"links.json", "trails.graphml", "trail1.png"} <= files


STAGES = ("enc1", "enc2", "bottleneck", "dec2", "dec1")


def with_unet(tiny: TinyStudy, **trails: Any) -> Path:
    """The study with an untrained U-Net of two skip connections."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"classes": 2, "widths": [4, 4, 6]}
    save_file(unet3d(**sizes).state_dict(), tiny.folder / "unet.safetensors")
    unet = {"name": "net", "factory": "voxplain.zoo:unet3d", "arguments": sizes}
    asked = {**SMALL["trails"], "layers": [*STAGES], "smallest_iou": 0, "trails": 2, **trails}
    models = [{**unet, "weights": "unet.safetensors"}]
    return tiny.write(models=models, analyses=[{"name": "trails", **asked}])


def test_trails_of_a_unet_lead_along_its_skip_connections(blobs: TinyStudy) -> None:
    run = run_study(Study.load(with_unet(blobs)))
    assert not run.failed
    result, page, folder = parts(run)["trails"]
    found = {(each["source"], each["target"]): each for each in result["skips"]}
    assert {*found} == {("enc1", "dec1"), ("enc2", "dec2")}
    assert found["enc1", "dec1"]["route"] == "around enc2, bottleneck, dec2"
    assert all(each["share"] > 0 for each in found.values())
    assert {each["route"] for each in result["links"]} >= {"around bottleneck"}
    assert "2 skip connections were tested" in " ".join(page.lead)
    assert "enc1 to dec1, enc2 to dec2" in " ".join(page.lead)
    assert [row[0] for row in page.tables[1].rows] == ["enc1 to dec1", "enc2 to dec2"]
    assert page.graph is not None
    notes = {edge.note for edge in page.graph.edges}
    assert "skip connection around bottleneck" in notes
    kept = json.loads((folder / "links.json").read_text())["edges"]
    assert [each["hold"] for each in kept if each["hold"]] == [
        ["enc2", "bottleneck", "dec2"],
        ["bottleneck"],
    ]


def test_named_skip_connections_are_tested_and_none_can_be_asked_for(blobs: TinyStudy) -> None:
    asked = [["enc2", "dec2"], ["enc1", "output"]]
    result, _, _ = parts(run_study(Study.load(with_unet(blobs, skips=asked))))["trails"]
    assert {(each["source"], each["target"]) for each in result["skips"]} == {
        ("enc2", "dec2"),
        ("enc1", "output"),
    }
    shares = {each["target"]: each["share"] for each in result["skips"]}
    assert shares["output"] < 1e-9  # nothing goes around dec1
    without = Study.load(with_unet(blobs, skips="none"))
    result, page, _ = parts(run_study(without))["trails"]
    assert result["skips"] == []
    assert "skip connections are not tested (skips: none)" in page.remarks
    with pytest.raises(ConfigError, match="skips: 'enc9' is no analyzed layer"):
        Study.load(with_unet(blobs, skips=[["enc9", "dec1"]]))


def test_errors_are_explained(blobs: TinyStudy) -> None:
    run = done(blobs, "errors")
    assert not run.failed
    result, page, _ = parts(run)["errors"]
    assert page.lead == result["sentences"]
    assert len(page.cards) == len(result["errors"]) == 1
    assert page.cards[0].figures


def test_units_are_replaced_and_regions_changed(blobs: TinyStudy) -> None:
    run = done(blobs, "interventions")
    assert not run.failed
    result, page, _ = parts(run)["interventions"]
    assert {each["measure"] for each in result["ablations"]} == {"logit", "dice"}
    assert [each["kind"] for each in result["swaps"]] == ["removal"]
    assert result["swaps"][0]["dice"]["cases"] == 4
    assert len(page.tables) == 2


@pytest.mark.parametrize(
    "name", ["concept_sensitivity", "concept_directions", "discovery", "sparse_directions"]
)
def test_directions_are_found_and_saved(blobs: TinyStudy, name: str) -> None:
    run = done(blobs, name)
    assert not run.failed
    _, page, folder = parts(run)[name]
    assert page.tables[0].rows
    assert list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("name", ["discovery", "sparse_directions"])
def test_found_directions_are_dissected_like_units(blobs: TinyStudy, name: str) -> None:
    run = done(blobs, name)
    assert not run.failed
    result, page, folder = parts(run)[name]
    meanings = {each["name"]: each for each in result["meanings"]}
    saved = json.loads(next(folder.glob("[cd]*s.json")).read_text())["names"]
    assert [*meanings] == saved
    best = max(meanings.values(), key=lambda each: each["iou"] if each["concept"] else 0)
    assert best["concept"] == "blob"
    assert best["iou"] > 0.5  # every direction of the layer is a smoothed copy of the image
    assert best["unit"].startswith("act/")
    assert best["detector"] is None  # two held-out patients give no interval
    assert any(each["share_positive"] == 1 for each in meanings.values())
    held_out = json.loads((folder / "dissection.json").read_text())["held_out"]
    assert held_out == json.loads((folder / "sensitivity.json").read_text())["held_out"]
    assert not {*held_out} & {*result.get("selection", result.get("cases"))}
    concepts, directions, *_ = page.tables
    assert [row[0] for row in concepts.rows] == ["blob", "blob ring 6mm"]
    assert [row[0] for row in directions.rows] == saved
    card = page.cards[0]
    assert directions.cards[saved.index(best["name"])] == card.name
    assert card.links[0][1] in directions.names
    assert "best single unit" in dict(card.facts)
    assert all((folder / figure.file).is_file() for each in page.cards for figure in each.figures)
    accentuated = [each for each in card.verdicts if each.topic == "accentuation"]
    assert len(accentuated) == (name == "sparse_directions")


def test_directions_without_concepts_are_found_and_not_dissected(blobs: TinyStudy) -> None:
    run = done(blobs, "sparse_directions", concepts=[], target=None)
    assert not run.failed
    result, page, folder = parts(run)["sparse_directions"]
    assert all(each["concept"] is None for each in result["meanings"])
    assert page.cards == []
    assert not (folder / "dissection.json").exists()
    assert not (folder / "sensitivity.json").exists()


def test_two_runs_give_the_same_results(blobs: TinyStudy) -> None:
    names = ("dissection", "uncertainty")
    first = {label: result for label, (result, _, _) in parts(done(blobs, *names)).items()}
    again = parts(done(blobs, *names, output="again"))
    assert {label: result for label, (result, _, _) in again.items()} == first


def test_results_keep_no_paths(blobs: TinyStudy) -> None:
    blobs.write(concepts=[{"kind": "file", "pattern": "{case}_seg.nii.gz", "names": {"blob": 1}}])
    run = done(blobs, "dissection")
    assert not run.failed
    for file in run.folder.rglob("*"):
        if file.suffix in {".json", ".yaml", ".jsonl"}:
            assert str(blobs.folder) not in file.read_text()


def test_a_file_of_a_concept_that_changes_does_the_dissection_again(blobs: TinyStudy) -> None:
    blobs.write(
        concepts=[{"kind": "file", "pattern": "{case}_seg.nii.gz", "names": {"blob": 1}}],
        analyses=[{"name": "dissection", **SMALL["dissection"]}],
        cases=[{"id": name, "image": f"{name}.nii.gz"} for name in "abcd"],
    )

    def key() -> str:
        (task,) = check_study(Study.load(blobs.file)).plan.analyses
        return task.key

    before = key()
    assert key() == before
    (blobs.folder / "a_seg.nii.gz").write_bytes((blobs.folder / "b_seg.nii.gz").read_bytes())
    assert key() != before


def test_a_dissection_without_concepts_is_refused(blobs: TinyStudy) -> None:
    with pytest.raises(ConfigError, match="analyses: dissection needs concepts"):
        done(blobs, "dissection", concepts=[])


def test_a_concept_that_is_mistyped_is_named(blobs: TinyStudy) -> None:
    wrong = [{"kind": "labels", "names": {"blob": 1}}, {"kind": "ring", "of": "blub", "within": 2}]
    with pytest.raises(ConfigError, match="there is no concept 'blub'"):
        done(blobs, "dissection", concepts=wrong)
    with pytest.raises(ConfigError, match="concepts"):
        done(blobs, "dissection", concepts=[{"kind": "labells", "names": {"blob": 1}}])


def test_a_layer_that_does_not_exist_fails_in_words_and_leaves_the_rest(blobs: TinyStudy) -> None:
    wrong = {"name": "dissection", **SMALL["dissection"], "layers": ["acct"]}
    sure = {"name": "uncertainty", **SMALL["uncertainty"]}
    run = run_study(Study.load(blobs.write(analyses=[wrong, sure])))
    (failed,) = run.failed
    assert "acct" in str(failed.reason)
    assert "act" in str(failed.reason)
    assert [record.label for record in run.manifest.analyses] == ["uncertainty"]
    assert "acct" in (run.write_report().parent / "report-network-net.html").read_text()
