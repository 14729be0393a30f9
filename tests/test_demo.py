"""The demo is a study like any other, with its files beside it."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.demo import template_file, write_demo
from voxplain.errors import ConfigError
from voxplain.study import Study


def test_the_demo_writes_a_study_that_stands_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    study = Study.load(write_demo(tmp_path / "demo"))
    assert [method.key for method in study.methods][:2] == ["saliency", "integrated_gradients"]
    (case,) = study.expanded_cases()
    assert case.image[0].parent == tmp_path / "demo"
    assert nibabel.load(case.image[0]).shape == nibabel.load(template_file()).shape
    text = (tmp_path / "demo/study.yaml").read_text()
    assert str(tmp_path) not in text.replace(f"voxplain run {tmp_path}", "")


def test_without_nilearn_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"voxplain\[demo\]"):
        write_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_finds_white_matter_in_under_a_minute_of_two_cores(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    before = time.process_time()
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert time.process_time() - before < 120
    run = tmp_path / "demo/run"
    assert (run / "report.html").stat().st_size < 25e6
    white = nibabel.load(run / "images/mni152_unet3d_pred.nii.gz").get_fdata() == 3
    folder = run / "maps/mni152/unet3d"
    for name in ("integrated_gradients", "deep_lift"):
        map_ = nibabel.load(folder / f"mni152_label-3_desc-{name}_attr.nii.gz").get_fdata()
        sidecar = json.loads((folder / f"mni152_label-3_desc-{name}_attr.json").read_text())
        # What speaks for white matter lies in it, though it is a sixth of the head.
        assert map_[white].clip(min=0).sum() > 0.6 * map_.clip(min=0).sum()
        assert np.isfinite(map_).all()
        assert sidecar["Completeness"] < 0.05
