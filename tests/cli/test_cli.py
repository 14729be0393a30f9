"""The command line as its users see it: exit codes, sentences, files."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from rich.console import Console
from tiny import AFFINE, TinyStudy, blob, pickled, save, write_tiny
from typer.testing import CliRunner

from voxplain import __version__
from voxplain.cli import app
from voxplain.cli.progress import Bar
from voxplain.records.manifest import TaskRecord
from voxplain.study import Study, check_study


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    study = write_tiny(tmp_path / "work", monkeypatch)
    monkeypatch.chdir(study.folder)
    return study


def voxplain(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flat(text: str) -> str:
    return " ".join(text.split())


def test_help_needs_neither_torch_nor_many_other_modules() -> None:
    code = (
        "import sys, contextlib\n"
        "from voxplain.cli import main\n"
        "sys.argv = ['voxplain', '--help']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "heavy = {'torch', 'numpy', 'nibabel', 'pydantic', 'monai'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert len(sys.modules) < 500, len(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("run", "explain", "plan", "methods", "layers", "audit", "schema", "doctor"):
        assert command in done.stdout


def test_every_command_has_help() -> None:
    for command in app.registered_commands:
        name = str(command.callback.__name__)  # type: ignore[union-attr]
        result = voxplain(name, "--help")
        assert result.exit_code == 0, result.output
        assert len(flat(result.output)) > 80


def test_the_version_is_printed() -> None:
    assert voxplain("--version").stdout.strip() == f"voxplain {__version__}"


def test_the_package_can_be_run_as_a_module(tiny: TinyStudy) -> None:
    def module(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "voxplain", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=tiny.environment
        )

    overview = module("--help")
    assert overview.returncode == 0, overview.stderr
    assert "Usage: voxplain" in overview.stdout
    assert "explain" in overview.stdout
    refused = module("run", "none.yaml")
    assert refused.returncode == 2
    assert "there is no such study file" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_run_writes_maps_and_report_and_says_where(tiny: TinyStudy) -> None:
    result = voxplain("run", tiny.file)
    assert result.exit_code == 0, result.output
    assert (tiny.run / "report.html").is_file()
    assert "report" in result.stdout
    assert "run/report.html" in result.stdout
    again = voxplain("run", tiny.file)
    assert again.stderr.count("kept from an earlier run") == 4


def test_the_terminal_shows_the_tasks(tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxplain.cli import progress

    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr(progress, "err", terminal)
    assert voxplain("run", tiny.file).exit_code == 0
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "b · net · saliency" in seen
    assert "/10 passes" in seen
    assert "left" in seen


def test_a_failed_task_is_named_and_the_exit_code_is_1(tiny: TinyStudy) -> None:
    save(tiny.folder / "dark.nii.gz", 0 * blob((1, 1, 1)))
    cases = [{"id": "dark", "image": "dark.nii.gz"}, {"id": "a", "image": "first.nii.gz"}]
    result = voxplain("run", tiny.write(cases=cases))
    assert result.exit_code == 1
    assert "error dark · net" in result.stderr
    assert "predicted nowhere" in result.stderr
    assert (tiny.run / "report.html").is_file()


def test_explain_does_what_the_study_does(tiny: TinyStudy) -> None:
    voxplain("run", tiny.file)
    result = voxplain(
        "explain", "first.nii.gz", "--factory", "tiny_net:build", "--weights", "net.safetensors",
        "--target", "pixelwise:1", "-m", "saliency", "-m", "integrated_gradients:steps=4",
        "--output", "flags",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("saliency", "integrated_gradients"):
        flags = tiny.folder / f"flags/maps/scan/build/scan_label-1_desc-{name}_attr.nii.gz"
        study = tiny.run / f"maps/a/net/a_label-1_desc-{name}_attr.nii.gz"
        np.testing.assert_array_equal(
            nibabel.load(flags).get_fdata(), nibabel.load(study).get_fdata()
        )
    assert "first" not in (tiny.folder / "flags/manifest.json").read_text()


def test_explain_prepares_the_image_as_told(tiny: TinyStudy) -> None:
    result = voxplain(
        "explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
        "--reorient", "RAS", "--spacing", "2,2,3", "--pad-to-multiple", "4",
        "--window", "8", "--overlap", "0.25", "--output", "flags",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    sidecar = json.loads(next((tiny.folder / "flags/maps").rglob("*.json")).read_text())
    assert len(sidecar["Grid"]["Inverted"]) == 3
    assert sidecar["Model"]["Window"]["overlap"] == 0.25
    assert sidecar["Grid"]["Shape"] == [14, 12, 10]


def test_a_window_larger_than_the_image_pads_and_says_so(tiny: TinyStudy) -> None:
    model = {"name": "net", "factory": "tiny_net:build", "window": {"size": 16}}
    result = voxplain("run", tiny.write(models=[model]))
    assert result.exit_code == 0, result.output
    assert "window" in flat(result.stderr)
    assert "pad" in flat(result.stderr)


def test_several_files_become_channels(tiny: TinyStudy) -> None:
    result = voxplain(
        "explain", "first.nii.gz", "second.nii.gz", "--factory", "tiny_net:build",
        "--arguments", '{"channels": 2}', "--target", "volume:1", "-o", "two",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    map_ = nibabel.load(next((tiny.folder / "two/maps").rglob("*.nii.gz")))
    assert map_.shape == (14, 12, 10, 2)


def _text_as_nifti(tiny: TinyStudy) -> dict[str, Any]:
    (tiny.folder / "first.nii.gz").write_text("this is no scan")
    return {}


def _truncated(tiny: TinyStudy) -> dict[str, Any]:
    file = tiny.folder / "first.nii.gz"
    file.write_bytes(file.read_bytes()[:1500])
    return {}


def _nan(tiny: TinyStudy) -> dict[str, Any]:
    array = blob((6, 6, 5))
    array[3, 4, 5] = np.nan
    save(tiny.folder / "first.nii.gz", array)
    return {}


def _pickle(tiny: TinyStudy) -> dict[str, Any]:
    pickled(tiny.folder / "net.pt")
    return {"models": [{"name": "net", "file": "net.pt"}]}


def _two_channels(tiny: TinyStudy) -> dict[str, Any]:
    array = np.stack([blob((6, 6, 5))] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tiny.folder / "first.nii.gz")
    return {"cases": tiny.config["cases"][:1]}


def _mixed_channels(tiny: TinyStudy) -> dict[str, Any]:
    _two_channels(tiny)
    return {"cases": [{"id": "b", "image": "second.nii.gz"}, {"id": "a", "image": "first.nii.gz"}]}


def _two_dimensional(tiny: TinyStudy) -> dict[str, Any]:
    np.save(tiny.folder / "flat.npy", blob((6, 6), (14, 12)))
    return {"cases": [{"id": "flat", "image": "flat.npy"}]}


def _model(**changes: Any) -> Callable[[TinyStudy], dict[str, Any]]:
    model = {"name": "net", "factory": "tiny_net:build", "weights": "net.safetensors"}
    config = {key: value for key, value in {**model, **changes}.items() if value is not None}
    return lambda tiny: {"models": [config]}


def _with(**changes: Any) -> Callable[[TinyStudy], dict[str, Any]]:
    return lambda tiny: changes


BAD: dict[str, tuple[Callable[[TinyStudy], dict[str, Any]], str]] = {
    "missing file": (
        _with(cases=[{"id": "a", "image": "none.nii.gz"}]), "case a: there is no file"),
    "truncated NIfTI": (_truncated, "first.nii.gz"),
    "text named .nii.gz": (_text_as_nifti, "first.nii.gz"),
    "channel mismatch": (_two_channels, "the network takes 1 channels and the image has 2"),
    "channels differ between cases": (_mixed_channels, "case a: 2 channels, but case b has 1"),
    "2-D image, 3-D network": (_two_dimensional, "the network is 3-D and the image is 2-D"),
    "unknown method": (_with(methods=["integrated_gradient"]), "mean integrated_gradients"),
    "unknown parameter": (
        _with(methods=[{"name": "integrated_gradients", "stpes": 3}]),
        "study.yaml: methods[0].integrated_gradients.stpes: unknown parameter"),
    "parameter out of range": (
        _with(methods=[{"name": "integrated_gradients", "steps": 0}]),
        "methods[0].integrated_gradients.steps"),
    "unknown layer": (
        _with(methods=[{"name": "grad_cam", "layer": "featurs"}]), "did you mean features?"),
    "unknown layer in a list": (
        _with(methods=[{"name": "layer_conductance", "layers": ["features", "hed"]}]),
        "did you mean head?"),
    "weights that do not fit": (_model(arguments={"channels": 2}), "model net: "),
    "missing weights": (_model(weights="none.safetensors"), "none.safetensors"),
    "unknown factory": (_model(factory="tiny_net:bild", weights=None), "did you mean build?"),
    "unknown argument": (_model(arguments={"chanels": 1}), "chanels"),
    "pickle without --trust": (_pickle, "--trust"),
    "NaN in the image": (_nan, "case a: "),
    "empty target": (
        _with(target={"kind": "pixelwise", "label": 2}), "class 2 is predicted nowhere"),
    "class that does not exist": (_with(target=7), "class 7 does not exist"),
    "dense target": (_with(target={"kind": "pixelwise", "label": 1}, cases=[
        {"id": "a", "image": "first.nii.gz", "reference": "none.nii.gz"}]), "case a, reference"),
    "unknown reference": (_with(references=["unknown"]), "'unknown' is neither"),
    "two models of one name": (
        lambda tiny: {"models": tiny.config["models"] * 2}, "two of them are called 'net'"),
    "preprocessing that does not fit": (
        _model(preprocess=[{"kind": "spacing", "size": [1, 1]}]), "model net, preprocess"),
    "head of a plain tensor": (_model(head="logits"), "head"),
    "a device that is not there": (
        _with(run={"device": "cuda:63"}), "run.device: cuda:63 is not there"),
    "a factory that runs commands": (
        _model(factory="os:system", arguments={"command": "touch made"}, weights=None), "--trust"),
    "a method that is no name": (_with(methods=[True]), "methods[0]: a method is a name"),
    "a method that is a number": (_with(methods=[float("inf")]), "a method is a name"),
    "a method that is a list": (_with(methods=[[None]]), "a method is a name"),
    "a target that is a list": (_with(target=[1]), "a target is a class number"),
    "a target that is a truth": (_with(target=True), "a target is a class number"),
    "ids that differ by case": (_with(cases=[
        {"id": "a", "image": "first.nii.gz"}, {"id": "A", "image": "second.nii.gz"}]),
        "which some systems do not tell by case"),
    "models that differ by case": (lambda tiny: {"models": [
        *tiny.config["models"], {**tiny.config["models"][0], "name": "NET"}]},
        "'net' and 'NET' differ by case alone"),
    "labels that differ by case": (_with(methods=[
        {"name": "saliency", "label": "x"}, {"name": "saliency", "label": "X", "abs": True}]),
        "'x' and 'X' differ by case alone"),
    "a window that no image fills": (
        _model(window={"size": [10**9] * 3}), "models[0].window.size: 1,000,000,000 voxels"),
    "a window that no memory holds": (
        _model(window={"size": [90_000] * 3}), "window.size asks for 90,000 x 90,000 x 90,000"),
    "voxels that are too small": (_model(preprocess=[{"kind": "spacing", "size": 1e-3}]),
        "spacing.size asks for"),
    "voxels that are too large": (_model(preprocess=[{"kind": "spacing", "size": 1e9}]),
        "larger than the whole image"),
    "padding that no memory holds": (
        _model(preprocess=[{"kind": "pad_to_multiple", "multiple": 10**6}]),
        "pad_to_multiple asks for"),
    "weights of an endless name": (_model(weights="x" * 5000), "file name too long"),
    "a time limit of ages": (_with(run={"timeout": 1e30}), "run.timeout"),
    "a method without references": (_with(methods=["saliency", "expected_gradients"]),
        "references: expected_gradients: this method compares with other images and 0 are given"),
    "a key that does not exist": (_with(modells=[]), "modells: unknown parameter; did you mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(tiny: TinyStudy, name: str) -> None:
    make, words = BAD[name]
    changes = make(tiny)
    tiny.write(**changes)
    before = tiny.files()
    result = voxplain("run", tiny.file)
    message = result.stderr.strip()
    assert result.exit_code == 2, result.output
    assert words in message, message
    assert message.startswith("error ")
    assert len(message.splitlines()) == 1, message
    assert "Traceback" not in result.output
    assert tiny.files() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "none.yaml"), "there is no such study file"),
        (("run", "first.nii.gz"), "not a text file"),
        (("explain", "first.nii.gz", "--target", "1"), "factory"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
          "-m", "saliency:steps"), "not name=value"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "{kind"),
         "--target: not JSON"),
        (("explain", "study.yaml", "--target", "1"), "voxplain run STUDY"),
        (("explain", "first.nii.gz", "--factory", "os:system", "--target", "1"), "--trust"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
          "-m", "occlusion:window=["), "'[' is no value"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
          "--window", "{"), "'{' is no value"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
          "--arguments", "[" * 100_000), "--arguments: JSON that cannot be read"),
        (("explain", "first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
          "--spacing", "3", "--normalize", "zscore", "--preprocess", "[]"),
         "so --spacing and --normalize beside it would be left out"),
        (("report", "."), "not a run directory"),
        (("methods", "salincy"), "did you mean saliency"),
    ],
)  # fmt: skip
def test_wrong_flags_are_one_sentence_too(
    tiny: TinyStudy, arguments: tuple[str, ...], words: str
) -> None:
    before = tiny.files()
    result = voxplain(*arguments)
    assert result.exit_code == 2, result.output
    assert words in flat(result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1
    assert tiny.files() == before


@pytest.mark.parametrize("where", ["x" * 300, "first.nii.gz/run"])
def test_what_the_system_refuses_is_a_sentence(tiny: TinyStudy, where: str) -> None:
    result = voxplain("run", tiny.file, "-o", where)
    assert result.exit_code in (1, 2), result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.strip().startswith("error ")
    assert len(result.stderr) < 500


def test_a_full_disk_is_a_sentence(tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxplain.study.execution import store

    def full(path: Path, content: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(store, "atomic_write", full)
    result = voxplain("run", tiny.file)
    assert result.exit_code == 1
    assert "error No space left on device: " in flat(result.stderr)


def test_debug_lets_the_error_through(tiny: TinyStudy) -> None:
    result = voxplain("--debug", "run", tiny.write(methods=["nothing"]))
    assert type(result.exception).__name__ == "ConfigError"


def test_plan_shows_tasks_and_runs_nothing(tiny: TinyStudy) -> None:
    before = tiny.files()
    result = voxplain("plan", tiny.file)
    assert result.exit_code == 0, result.output
    assert "10 passes" in flat(result.stdout)
    assert "integrated_gradients" in result.stdout
    assert tiny.files() == before


def test_plan_counts_forwards_apart_from_passes(tiny: TinyStudy) -> None:
    boxes = {"name": "occlusion", "window": 5, "stride": 5}
    result = voxplain("plan", tiny.write(methods=["saliency", boxes]))
    assert result.exit_code == 0, result.output
    # 3 x 3 x 2 boxes on 14 x 12 x 10 voxels, on both cases.
    assert "2 passes and 36 forwards" in flat(result.stdout)
    assert "SlidingBox filled with blur" in flat(result.stdout)
    assert "20,000" in flat(result.stdout)


@pytest.mark.parametrize("command", ["run", "plan", "explain"])
def test_what_takes_too_many_passes_is_refused_before_anything_starts(
    tiny: TinyStudy, command: str
) -> None:
    where: list[str | Path] = [tiny.write(methods=[{"name": "integrated_gradients", "steps": 40}])]
    if command == "explain":
        where = ["first.nii.gz", "--factory", "tiny_net:build", "--target", "1",
                 "-m", "integrated_gradients:steps=40"]  # fmt: skip
    before = tiny.files()
    result = voxplain(command, *where, "--max-passes", "12")
    assert result.exit_code == 2, result.output
    message = flat(result.stderr)
    assert "integrated_gradients takes about 40 passes" in message
    assert "no more than 12 are allowed; steps=12 would do" in message
    assert len(result.stderr.strip().splitlines()) == 1
    assert tiny.files() == before
    if command == "plan":
        assert voxplain(command, *where, "--max-passes", "40").exit_code == 0


def test_the_limit_of_the_help_is_the_limit_of_a_study() -> None:
    from voxplain.study.config.run import RunConfig

    for command in ("run", "plan", "explain"):
        text = re.sub(r"[\s│]+", " ", voxplain(command, "--help").stdout)
        assert f"{RunConfig().max_passes:,} unless it says otherwise" in text


def test_methods_lists_all_and_describes_one() -> None:
    from voxplain.attribution.methods import methods

    listed = voxplain("methods").stdout
    for name in methods:
        assert name in listed
    described = voxplain("methods", "integrated_gradients").stdout
    for word in ("steps", "32 passes", "quadrature", "gauss_legendre", "baseline", "Gradients"):
        assert word in described
    assert "Class activation maps" in listed
    assert "121 / 1,331 forwards" in flat(listed)


@pytest.mark.parametrize("source", ["study", "flags"])
def test_layers_lists_paths_and_shapes(tiny: TinyStudy, source: str) -> None:
    flags = ("first.nii.gz", "--factory", "tiny_net:build")
    result = voxplain("layers", *(("study.yaml",) if source == "study" else flags))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["features", "Conv3d", "4x14x12x10", "1x1x1", "112"] in rows


def test_audit_says_what_is_covered(tiny: TinyStudy) -> None:
    result = voxplain("audit", "study.yaml", "--rule", "guided")
    assert result.exit_code == 0, result.output
    assert "covered" in result.stdout
    assert json.loads(voxplain("audit", "study.yaml", "--json").stdout)


def test_audit_fails_where_a_rule_is_not_covered(tiny: TinyStudy) -> None:
    (tiny.packages / "odd_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.mix = nn.Conv3d(1, 2, 1)\n"
        "    def forward(self, x):\n        return torch.cumprod(self.mix(x), -1)\n"
        "def build() -> nn.Module:\n    return Odd()\n"
    )
    result = voxplain("audit", "first.nii.gz", "--factory", "odd_net:build", "-r", "deep_lift")
    assert result.exit_code == 1, result.output
    assert "not covered: deep_lift" in flat(result.stderr)


def test_schema_is_json_that_accepts_the_study(tiny: TinyStudy) -> None:
    schema = json.loads(voxplain("schema").stdout)
    assert {"cases", "models", "methods", "target", "run"} <= set(schema["properties"])


def test_doctor_shows_versions_and_cores() -> None:
    result = voxplain("doctor")
    assert result.exit_code == 0, result.output
    for word in ("voxplain", "torch", "cores", "memory", "nilearn"):
        assert word in result.stdout


def test_report_is_written_again(tiny: TinyStudy) -> None:
    voxplain("run", tiny.file)
    (tiny.run / "report.html").unlink()
    result = voxplain("report", tiny.run)
    assert result.exit_code == 0, result.output
    assert (tiny.run / "report.html").is_file()


def test_the_plan_counts_passes_and_forwards_apart(tiny: TinyStudy) -> None:
    boxes = {"name": "occlusion", "window": 7, "stride": 7, "incremental": "off"}
    tiny.write(methods=[{"name": "integrated_gradients", "steps": 40}, boxes])
    output = flat(voxplain("plan", tiny.file).stdout)
    tasks = check_study(Study.load(tiny.file)).plan.tasks
    passes = sum(task.passes for task in tasks if not task.forwards)
    forwards = sum(task.forwards for task in tasks)
    assert passes == 2 * 40
    assert f"total 4 tasks, {passes} passes and {forwards} forwards, about" in output


def test_remarks_of_tasks_are_printed_once(tiny: TinyStudy) -> None:
    methods = ["saliency", {"name": "layer_activation", "layers": ["features"]}]
    tiny.write(methods=methods, metrics=["sparseness"])
    result = voxplain("run", tiny.file)
    assert result.exit_code == 0, result.output
    assert flat(result.stderr).count("not scored: layer_activation") == 1


def test_the_bar_moves_by_passes_from_task_to_task() -> None:
    """A task that reports fewer steps than passes moves by its share, a kept one by all."""
    bar = Bar()

    def at() -> float:
        return bar._progress.tasks[0].completed

    def task(passes: int) -> Any:
        facts = {"key": f"of {passes}", "kind": "maps", "labels": ["m"]}
        return SimpleNamespace(passes=passes, place=("a", "net", "1"), **facts)

    def record(passes: int) -> TaskRecord:
        facts = {"key": f"of {passes}", "case": "a", "model": "net", "target": "1"}
        return TaskRecord(**facts, methods=["m"], passes=passes)

    bar.planned(SimpleNamespace(passes=160), 1)
    bar.started(task(100), 0)
    bar.passed(1, 4, 0)
    assert at() == 25
    bar.passed(4, 4, 0)
    bar.finished(record(100), reused=False)
    assert at() == 100
    bar.finished(record(40), reused=True)
    assert at() == 140
    bar.started(task(20), 0)
    bar.passed(3, 6, 0)
    assert (at(), bar._progress.tasks[0].total) == (150, 160)
    bar.started(task(10), 1)  # another worker
    bar.passed(1, 2, 1)
    assert at() == 155
    bar.finished(record(20), reused=False)
    assert at() == 165
    bar.passed(6, 6, 0)  # comes late
    assert at() == 165


def test_the_bar_counts_the_remaining_time_down(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar()
    (first,) = bar._progress.tasks
    assert bar._left.render(first).plain == ""
    clock = [100.0]
    monkeypatch.setattr("voxplain.cli.progress.time.monotonic", lambda: clock[0])
    bar.remaining(200.0)
    assert bar._left.render(first).plain == "3 min 20 s left"
    clock[0] += 80.0
    assert bar._left.render(first).plain == "2 min 0 s left"
