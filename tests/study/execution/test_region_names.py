"""Regions keep the names of their atlas, from the study file to the report."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from tiny import AFFINE, SHAPE, TinyStudy

from voxplain.records.sidecar import Sidecar
from voxplain.study import Study

REGIONS = {"kind": "labels", "labels": "*_atlas.nii.gz", "names": "atlas.json"}


def test_names_of_an_atlas_reach_sidecar_and_report(tiny: TinyStudy) -> None:
    labels = np.ones(SHAPE, np.uint8)
    labels[7:] = 2
    labels[:, :6] = 3
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), tiny.folder / "a_atlas.nii.gz")
    names = {"1": "left lobe", "2": "right lobe", "3": "stem"}
    (tiny.folder / "atlas.json").write_text(json.dumps(names))
    methods = [{"name": name, "regions": REGIONS} for name in ("kernel_shap", "feature_ablation")]
    run = Study.load(tiny.write(cases=tiny.config["cases"][:1], methods=methods)).run()
    assert not run.failed
    for record in run.manifest.maps:
        sidecar = Sidecar.model_validate_json((run.folder / record.sidecar).read_text("utf-8"))
        regions = sidecar.findings["regions"]
        assert {entry["name"]: entry["voxels"] for entry in regions} == {
            name: int((labels == int(label)).sum()) for label, name in names.items()
        }
        # On the grid of the scan every voxel holds the value of its region, not a share of it.
        values = nibabel.load(run.folder / record.file).get_fdata()
        for entry in regions:
            label = next(int(key) for key, name in names.items() if name == entry["name"])
            assert values[labels == label] == pytest.approx(entry["value"], rel=1e-5)
    page = (run.folder / "report.html").read_text("utf-8")
    assert page.count("right lobe") == 2
    assert "nothing left" in page
