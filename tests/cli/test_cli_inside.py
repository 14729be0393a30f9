"""Commands on what is inside of a network: with flags for one image, and on studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from tiny import TinyStudy, blob, save, write_tiny
from typer.testing import CliRunner

from voxplain.cli import app

SMALL = {"name": "uncertainty", "samples": 2, "cards": 1}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    return write_tiny(tmp_path / "work", monkeypatch)


def voxplain(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flags(tiny: TinyStudy) -> list[Any]:
    image, weights = tiny.folder / "first.nii.gz", tiny.folder / "net.safetensors"
    return [image, "--factory", "tiny_net:build", "--weights", weights, "-o", tiny.run]


def analyses(tiny: TinyStudy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((tiny.run / "manifest.json").read_text())["analyses"]
    return found


def test_one_image_is_asked_how_sure_the_network_is(tiny: TinyStudy) -> None:
    result = voxplain("uncertainty", *flags(tiny), "--samples", 2)
    assert result.exit_code == 0, result.output
    (record,) = analyses(tiny)
    assert record["name"] == "uncertainty"
    assert list((tiny.run / record["folder"]).glob("*uncertainty-total_map.nii.gz"))
    assert "Inside" in (tiny.run / "report.html").read_text()


def test_units_are_driven_from_one_image(tiny: TinyStudy) -> None:
    dream = "deep_dream:octaves=1,steps=2"
    result = voxplain("visualize", *flags(tiny), "-u", "act:0", "-m", dream)
    assert result.exit_code == 0, result.output
    (record,) = analyses(tiny)
    (made,) = json.loads((tiny.run / record["folder"] / "result.json").read_text())
    assert (made["method"], made["unit"]) == ("deep_dream", "act:0")


def test_what_is_driven_has_to_be_named(tiny: TinyStudy) -> None:
    result = voxplain("visualize", *flags(tiny))
    assert result.exit_code == 2
    assert "--unit" in result.output


def test_a_command_does_the_analyses_of_its_kind_and_nothing_else(tiny: TinyStudy) -> None:
    tiny.write(analyses=[SMALL])
    result = voxplain("uncertainty", tiny.file)
    assert result.exit_code == 0, result.output
    tasks = json.loads((tiny.run / "manifest.json").read_text())["tasks"]
    assert {task["kind"]: task["status"] for task in tasks} == {
        "maps": "pending",
        "analysis": "done",
    }
    assert voxplain("run", tiny.file).exit_code == 0
    assert len(analyses(tiny)) == 1


def test_a_study_without_such_an_analysis_says_what_to_add(tiny: TinyStudy) -> None:
    for command in ("dissect", "trails", "errors"):
        result = voxplain(command, tiny.file)
        assert result.exit_code == 2
        assert "analyses: [" in result.output


TRAILS: dict[str, Any] = {
    "name": "trails",
    "layers": ["features", "act"],
    "units": 1,
    "null_sets": 2,
    "random_trails": 2,
    "trails": 1,
    "smallest_iou": 0.01,
    "random_network": False,
}


def study_of_trails(tiny: TinyStudy) -> Path:
    cases = []
    for name, center in (("p", (6, 6, 5)), ("q", (8, 4, 6)), ("r", (5, 7, 4)), ("s", (9, 6, 5))):
        image = blob(center)
        save(tiny.folder / f"{name}.nii.gz", image)
        save(tiny.folder / f"{name}_seg.nii.gz", (image > 1.2).astype(np.uint8))
        cases.append({"id": name, "image": f"{name}.nii.gz", "reference": f"{name}_seg.nii.gz"})
    concepts = [{"kind": "labels", "names": {"blob": 1}}]
    return tiny.write(cases=cases, methods=[], concepts=concepts, analyses=[TRAILS])


def test_skip_connections_are_chosen_by_a_flag(tiny: TinyStudy) -> None:
    study, kept = study_of_trails(tiny), {}
    for flag in ((), ("--skips", "none"), ("--skips", "features:output")):
        result = voxplain("trails", study, *flag)
        assert result.exit_code == 0, result.output
        (record,) = analyses(tiny)
        folder = tiny.run / record["folder"]
        kept[flag] = [
            (each["source"], each["target"], each["route"], each["share"])
            for each in json.loads((folder / "result.json").read_text())["skips"]
        ]
    # Nothing leads around the last layer of the tiny network, which a named pair shows as well.
    assert kept[()] == kept["--skips", "none"] == []
    assert kept["--skips", "features:output"] == [("features", "output", "around act", 0.0)]


def test_a_skip_connection_that_is_mistyped_is_refused(tiny: TinyStudy) -> None:
    study = study_of_trails(tiny)
    for flag, words in (("features", "two layers"), ("feature:act", "'feature' is no analyzed")):
        result = voxplain("trails", study, "--skips", flag)
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())
    result = voxplain("trails", study, "--skips", "none", "--skips", "auto")
    assert result.exit_code == 2
