"""What a MONAI bundle declares beside its network is done as MONAI does it, or named."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from voxplain import read_image
from voxplain.errors import VoxplainWarning
from voxplain.loading import load_model
from voxplain.models.loading.bundle_steps import NoCounterpartError, steps_of, window_of
from voxplain.preprocess import apply, parse_step

monai = pytest.importorskip("monai")

LOAD = [
    {"_target_": "LoadImaged", "keys": ["image"]},
    {"_target_": "EnsureChannelFirstd", "keys": ["image"]},
]
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [20, 10, 30], degrees=True).as_matrix() @ np.diag(
    [-1.1, 0.9, 2.4]
)
OBLIQUE[:3, 3] = [40, -7, 3]


@pytest.fixture(params=[OBLIQUE, np.diag([1.3, 1.0, 2.0, 1.0])], ids=["oblique", "straight"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(15, 13, 9)) * 300
    values[:2] = values[:, -3:] = 0
    nibabel.save(
        nibabel.Nifti1Image(values.astype(np.float32), request.param), tmp_path / "s.nii.gz"
    )
    return tmp_path / "s.nii.gz"


def transforms(*listed: dict[str, Any]) -> list[dict[str, Any]]:
    return [*LOAD, *({"keys": "image", **each} for each in listed)]


def by_monai(scan: Path, listed: list[dict[str, Any]]):
    from monai.bundle import ConfigParser

    parser = ConfigParser({"all": {"_target_": "Compose", "transforms": listed}})
    return parser.get_parsed_content("all")({"image": str(scan)})["image"]


CASES: dict[str, list[dict[str, Any]]] = {
    "orientation": [{"_target_": "Orientationd", "axcodes": "LPS"}],
    "spacing": [{"_target_": "Spacingd", "pixdim": [1.5, 0.7, 2.0], "mode": "bilinear"}],
    "spacing of one axis": [{"_target_": "Spacingd", "pixdim": [-1, -1, 1], "mode": ["bilinear"]}],
    "range": [
        {"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164, "b_min": 0.0, "b_max": 1.0,
         "clip": True},
        {"_target_": "CropForegroundd", "source_key": "image"},
    ],
    "range without output": [{"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164}],
    "percentiles": [
        {"_target_": "ScaleIntensityRangePercentilesd", "lower": 5, "upper": 90, "b_min": -1,
         "b_max": 1, "clip": True},
    ],
    "nonzero": [
        {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True},
        {"_target_": "DivisiblePadd", "k": 8},
    ],
    "fixed": [{"_target_": "NormalizeIntensityd", "subtrahend": 12.5, "divisor": 3.0}],
    "minmax": [{"_target_": "ScaleIntensityd", "minv": -1.0, "maxv": 1.0}],
    "all": [
        {"_target_": "Orientationd", "axcodes": "RAS"},
        {"_target_": "Spacingd", "pixdim": [1.0, 1.0, 1.5]},
        {"_target_": "CropForegroundd", "source_key": "image", "margin": 2, "allow_smaller": True},
        {"_target_": "NormalizeIntensityd"},
        {"_target_": "EnsureTyped"},
    ],
}  # fmt: skip


class TestSteps:
    @pytest.mark.parametrize("case", CASES)
    def test_voxels_and_their_place_are_those_of_monai(self, scan: Path, case: str) -> None:
        listed = transforms(*CASES[case])
        theirs = by_monai(scan, listed)
        ours = apply(read_image(scan), steps_of({"_target_": "Compose", "transforms": listed}))
        assert tuple(theirs.shape[1:]) == ours.grid.shape
        np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(ours.grid.affine, theirs.affine.numpy(), atol=1e-4)

    def test_labels_and_disabled_transforms_play_no_part(self) -> None:
        listed = [
            *LOAD,
            {"_target_": "RandFlipd", "keys": "label"},
            {"_target_": "RandFlipd", "keys": "image", "_disabled_": True},
        ]
        assert steps_of(listed) == ()

    @pytest.mark.parametrize(
        ("transform", "words"),
        [
            ({"_target_": "RandAffined"}, "RandAffined"),
            ({"_target_": "CropForegroundd", "margin": 3}, "a margin beyond the image"),
            ({"_target_": "CropForegroundd", "select_fn": "$lambda x: x > 3"}, "an expression"),
            ({"_target_": "Spacingd", "pixdim": [1, 1, 1], "diagonal": True}, "diagonal True"),
            ({"_target_": "Spacingd", "pixdim": [1, 1, 1], "mode": 3}, "mode 3"),
            ({"_target_": "NormalizeIntensityd", "divisor": 3}, "one of subtrahend and divisor"),
            ({"_target_": "ScaleIntensityd", "gamma": 2}, "ScaleIntensityd with gamma"),
        ],
    )
    def test_what_has_no_counterpart_is_named(self, transform, words: str) -> None:
        with pytest.raises(NoCounterpartError, match=words):
            steps_of(transforms(transform))

    def test_spacing_as_in_monai_is_kept_in_json_and_comes_back(self, scan: Path) -> None:
        step = parse_step({"kind": "spacing", "size": 1.5, "align": "monai"})
        assert parse_step(step.model_dump(mode="json")) == step
        assert "align" not in parse_step({"kind": "spacing"}).model_dump()
        image = apply(read_image(scan), [step])
        values = torch.randn(1, *image.grid.shape)
        assert torch.isclose(image.restore(values, "mass").sum(), values.sum(), atol=1e-3)


class TestWindows:
    def test_windows_are_those_of_the_inferer(self) -> None:
        found = window_of(
            {
                "_target_": "monai.inferers.SlidingWindowInferer",
                "roi_size": [96, -1, 64],
                "sw_batch_size": 4,
                "overlap": 0.5,
                "mode": "gaussian",
            }
        )
        assert found == {
            "size": (96, 1.0, 64),
            "overlap": 0.5,
            "blend": "gaussian",
            "padding": "constant",
            "padding_value": 0.0,
        }
        assert window_of({"_target_": "SimpleInferer"}) is None
        default = window_of({"_target_": "SlidingWindowInferer", "roi_size": 8})
        assert (default["overlap"], default["blend"]) == (0.25, "constant")

    @pytest.mark.parametrize(
        ("inferer", "words"),
        [
            ({"_target_": "SliceInferer", "roi_size": [8, 8]}, "SliceInferer"),
            ({"_target_": "SlidingWindowInferer", "roi_size": 8, "sigma_scale": 0.2}, "sigma_sca"),
            ({"_target_": "SlidingWindowInferer", "roi_size": 8, "with_coord": True}, "with_coord"),
            ("$monai.inferers.SimpleInferer()", "an expression"),
        ],
    )
    def test_other_inferers_are_named(self, inferer, words: str) -> None:
        with pytest.raises(NoCounterpartError, match=words):
            window_of(inferer)


class TestBundle:
    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        from monai.networks.nets import UNet

        torch.manual_seed(0)
        folder = tmp_path / "spleen"
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        torch.save(UNet(3, 1, 2, (4, 8), (2,)).state_dict(), folder / "models/model.pt")
        return folder

    def write(self, folder: Path, **content: Any) -> None:
        stated = {
            "image_key": "image",
            "network_def": {
                "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                "channels": [4, 8], "strides": [2],
            },
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": "@image_key"},
                    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
                    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.0, 1.0, 1.5]},
                    {"_target_": "NormalizeIntensityd", "keys": "@image_key"},
                ],
            },
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "overlap": 0.5},
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                ],
            },
            **content,
        }  # fmt: skip
        metadata = {
            "network_data_format": {
                "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}}
            }
        }
        (folder / "configs/inference.json").write_text(json.dumps(stated))
        (folder / "configs/metadata.json").write_text(json.dumps(metadata))

    def test_its_output_is_that_of_monai(self, bundle: Path, scan: Path) -> None:
        from monai.bundle import ConfigParser

        self.write(bundle)
        with warnings.catch_warnings():
            warnings.simplefilter("error", VoxplainWarning)
            loaded = load_model(bundle=bundle, trust=True)
        assert loaded.model.classes == ("background", "spleen")
        assert loaded.model.activation == "softmax"
        prepared = loaded.prepare(read_image(scan))
        ours = loaded.model.output(prepared.data[None])
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs/inference.json"))
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(bundle / "models/model.pt"))
        image = parser.get_parsed_content("preprocessing")({"image": str(scan)})["image"]
        with torch.no_grad():
            theirs = parser.get_parsed_content("inferer")(image[None].as_tensor(), network)
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)

    def test_what_cannot_be_taken_over_is_to_be_stated(self, bundle: Path) -> None:
        self.write(bundle, preprocessing="$my_transforms()", inferer={"_target_": "SliceInferer"})
        words = (
            r"bundle spleen: its preprocessing \(an expression\) and its inferer \(SliceInferer\) "
            "cannot be taken over; state preprocess and window in the study"
        )
        with pytest.warns(VoxplainWarning, match=words):
            load_model(bundle=bundle, trust=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", VoxplainWarning)
            loaded = load_model(
                bundle=bundle, trust=True, window={"size": 8}, preprocess=[{"kind": "reorient"}]
            )
        assert len(loaded.preprocess) == 1

    def test_what_the_study_states_counts(self, bundle: Path) -> None:
        self.write(bundle)
        loaded = load_model(bundle=bundle, trust=True, window=None, classes=["a", "b"])
        assert loaded.model.window is None
        assert loaded.model.classes == ("a", "b")
        assert [step.kind for step in loaded.preprocess] == ["reorient", "spacing", "normalize"]
