"""A study of a trained folder of nnU-Net: folds, remarks, maps on the scan, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from helpers import nnunet_folders as folders
from helpers import plain_conv_unet
from voxplain.cli.flags import SharedFlags
from voxplain.study import Study
from voxplain.study.config.study import StudyConfig

AFFINE = np.diag([1.0, 0.8, 2.5, 1.0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plain_conv_unet.install(monkeypatch)
    content = folders.plans("3d_fullres", folders.configuration((6, 8, 8), (2.0, 1.0, 1.0)))
    networks = {fold: plain_conv_unet.built(folders.architecture(3), 1, 2, fold) for fold in (0, 1)}
    values = np.random.default_rng(0).normal(size=(12, 11, 6)).astype(np.float32) + 3
    values[:2] = 0
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "scan.nii.gz")
    return folders.write_folder(tmp_path / "trained", content, networks, folders.REGIONS)


def study(folder: Path, **model: Any) -> Study:
    return Study.parse(
        {
            "cases": [{"id": "p1", "image": str(folder.parent / "scan.nii.gz")}],
            "models": [{"name": "net", "nnunet": str(folder), **model}],
            "target": "volume:1",
            "methods": ["saliency"],
        },
        base=folder.parent,
    )


def test_folds_are_networks_whose_maps_lie_on_the_scan(folder: Path) -> None:
    run = study(folder, folds=[0, 1]).run()
    assert [model.name for model in run.manifest.models] == ["net-fold0", "net-fold1"]
    assert not run.failed
    for file in run.maps:
        loaded = nibabel.load(file)
        assert loaded.shape[:3] == (12, 11, 6)
        assert np.allclose(loaded.affine, AFFINE)
        assert loaded.get_fdata().any()
        assert not loaded.get_fdata()[:2].any()
        sidecar = json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text())
        assert "mirrored along axes 0, 1" in json.dumps(sidecar)


def test_the_resolved_study_states_what_the_folder_did(folder: Path) -> None:
    run = study(folder, folds=0).run()
    (model,) = yaml.safe_load((run.folder / "study.yaml").read_text())["models"]
    assert "nnunet" not in model
    assert model["classes"] == ["whole", "core"]
    assert model["activation"] == "sigmoid"
    assert model["window"]["blend"] == "nnunet"
    read = study(folder, preprocess=model["preprocess"])
    again = read.models[0].preprocess
    assert [step.kind for step in again] == [
        "transpose", "crop_foreground", "nnunet_normalize", "nnunet_resample",
    ]  # fmt: skip
    assert again[1].threshold == "nonzero"


def test_resuming_computes_nothing_and_another_preprocessing_all(folder: Path) -> None:
    first = study(folder, folds=0).run()
    before = {file: file.stat().st_mtime_ns for file in first.maps}
    second = study(folder, folds=0).run()
    assert {file: file.stat().st_mtime_ns for file in second.maps} == before
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.2, 1.0]
    (folder / "plans.json").write_text(json.dumps(plans))
    third = study(folder, folds=0).run()
    assert all(file.stat().st_mtime_ns > before[file] for file in third.maps)


def test_flags_name_one_network(folder: Path) -> None:
    flags = SharedFlags([Path("scan.nii.gz")], nnunet=folder, folds="0,1")
    model = flags.model()
    assert model["nnunet"] == str(folder)
    parsed = StudyConfig.parse(flags.study("1"))
    assert parsed.models[0].ensemble
    assert parsed.models[0].folds == (0, 1)
    single = SharedFlags([Path("scan.nii.gz")], nnunet=folder, folds="1").model()
    assert StudyConfig.parse(flags.study("1") | {"models": [single]}).models[0].folds == (1,)
