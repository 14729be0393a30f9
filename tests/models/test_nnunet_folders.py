"""Trained folders of nnU-Net v2 are read as they state, without nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from helpers import nnunet_folders as folders
from helpers import plain_conv_unet
from voxplain.errors import ModelError
from voxplain.image import Grid, Image
from voxplain.loading import load_model
from voxplain.models.loading import ModelSpec, open_network

PATCH, SPACING = (6, 8, 8), (2.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_conv_unet.install(monkeypatch)


def network(dims: int = 3, outputs: int = 3, seed: int = 0, inputs: int = 1):
    return plain_conv_unet.built(folders.architecture(dims), inputs, outputs, seed)


def written(folder: Path, content: Any = None, **fields: Any) -> Path:
    content = content or folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
    fields.setdefault("networks", {0: network()})
    return folders.write_folder(folder, content, **fields)


def opened(folder: Path, **fields: Any):
    return open_network(ModelSpec(nnunet=folder, **fields))


class TestReading:
    def test_weights_windows_and_classes(self, tmp_path: Path) -> None:
        found = opened(written(tmp_path))
        inputs = torch.randn(1, 1, *PATCH)
        assert torch.equal(found.network(inputs), network()(inputs))
        assert found.beside.window == {"size": PATCH, "overlap": 0.5, "blend": "nnunet"}
        assert found.beside.classes == ("background", "liver", "tumor")
        assert found.beside.activation == "softmax"
        (remark,) = found.beside.remarks
        assert "mirrored along axes 0, 1" in remark

    def test_the_final_checkpoint_and_else_the_best(self, tmp_path: Path) -> None:
        written(tmp_path, networks={0: network(seed=1)}, file="checkpoint_best.pth")
        inputs = torch.randn(1, 1, *PATCH)
        best = opened(tmp_path)
        assert torch.equal(best.network(inputs), network(seed=1)(inputs))
        assert "checkpoint_best.pth is taken, not the final checkpoint" in best.beside.remarks
        written(tmp_path, networks={0: network(seed=2)})
        assert torch.equal(opened(tmp_path).network(inputs), network(seed=2)(inputs))
        named = opened(tmp_path, checkpoint="checkpoint_best.pth").network
        assert torch.equal(named(inputs), network(seed=1)(inputs))

    def test_regions_are_independent_and_the_ignored_label_is_no_class(
        self, tmp_path: Path
    ) -> None:
        found = opened(written(tmp_path / "a", labels=folders.REGIONS, networks={0: network(3, 2)}))
        assert found.beside.classes == ("whole", "core")
        assert found.beside.activation == "sigmoid"
        labels = {"background": 0, "tumor": 2, "liver": [1], "ignore": 3}
        found = opened(written(tmp_path / "b", labels=labels))
        assert found.beside.classes == ("background", "liver", "tumor")

    def test_axes_of_files_are_turned_and_transposed(self, tmp_path: Path) -> None:
        for transposed, order in (((0, 1, 2), (2, 1, 0)), ((1, 2, 0), (1, 0, 2))):
            content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING), transposed)
            written(tmp_path, content)
            assert opened(tmp_path).beside.preprocess[0] == {"kind": "transpose", "order": order}
        content["image_reader_writer"] = "SimpleITKIOWithReorient"
        written(tmp_path, content)
        assert opened(tmp_path).beside.preprocess[0] == {"kind": "reorient", "axes": "RAS"}

    def test_the_channels_keep_their_schemes(self, tmp_path: Path) -> None:
        stated = folders.configuration(
            PATCH,
            SPACING,
            normalization_schemes=["CTNormalization", "ZScoreNormalization"],
            use_mask_for_norm=[False, True],
        )
        nets = {0: network(inputs=2)}
        found = opened(written(tmp_path, folders.plans("3d_fullres", stated), networks=nets))
        ct = {"scheme": "ct", "lower": -20.0, "upper": 110.0, "mean": 40.0, "deviation": 25.0}
        zscore = {"scheme": "zscore", "inside": True}
        assert found.beside.preprocess[2]["channels"] == (ct, zscore)

    def test_a_configuration_inherits(self, tmp_path: Path) -> None:
        content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
        written(tmp_path, content)
        own = {"inherits_from": "parent", "patch_size": [4, 8, 8]}
        content["configurations"] = {
            "parent": content["configurations"]["3d_fullres"],
            "3d_fullres": own,
        }
        (tmp_path / "plans.json").write_text(json.dumps(content))
        assert opened(tmp_path).beside.window["size"] == (4, 8, 8)

    def test_plans_before_2_3_state_the_architecture_otherwise(self, tmp_path: Path) -> None:
        content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
        written(tmp_path, content)
        old = content["configurations"]["3d_fullres"]
        del old["architecture"]
        old |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 4,
            "unet_max_num_features": 320,
            "n_conv_per_stage_encoder": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
            "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        }
        (tmp_path / "plans.json").write_text(json.dumps(content))
        inputs = torch.randn(1, 1, *PATCH)
        assert torch.equal(opened(tmp_path).network(inputs), network()(inputs))


class TestSlices:
    def test_a_2d_network_sees_each_slice_alone(self, tmp_path: Path) -> None:
        content = folders.plans("2d", folders.configuration((8, 6), (1.0, 1.0)))
        loaded = load_model(nnunet=written(tmp_path, content, networks={0: network(2)}))
        assert loaded.model.window.size == (1, 8, 6)
        image = Image(torch.randn(1, 6, 8, 5), Grid.default((6, 8, 5), (1, 1, 3)))
        prepared = loaded.prepare(image)
        assert prepared.grid.shape == (5, 8, 6)
        output = loaded.model.output(prepared.data[None])[0]
        slices = network(2)(prepared.data.transpose(0, 1))
        torch.testing.assert_close(output, slices.transpose(0, 1), atol=1e-5, rtol=1e-5)

    def test_pictures_have_no_slices(self, tmp_path: Path) -> None:
        content = folders.plans(
            "2d",
            folders.configuration(
                (8, 6), (1.0, 1.0), normalization_schemes=["RGBTo01Normalization"]
            ),
            image_reader_writer="NaturalImage2DIO",
        )
        loaded = load_model(nnunet=written(tmp_path, content, networks={0: network(2)}))
        image = Image(torch.randint(0, 256, (1, 8, 6)), Grid.default((8, 6), None))
        prepared = loaded.prepare(image)
        output = loaded.model.output(prepared.data[None])
        torch.testing.assert_close(output, network(2)(image.data[None] / 255))


class TestFolds:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return written(tmp_path, networks={0: network(seed=0), 1: network(seed=1)})

    def test_an_ensemble_is_the_mean(self, folder: Path) -> None:
        inputs = torch.randn(1, 1, *PATCH)
        mean = (network(seed=0)(inputs) + network(seed=1)(inputs)) / 2
        for found in (opened(folder), opened(folder, folds=[0, 1], ensemble=True)):
            torch.testing.assert_close(found.network(inputs), mean)
            assert "the mean of the folds 0, 1 is explained" in found.beside.remarks
        assert torch.equal(opened(folder, folds=1).network(inputs), network(seed=1)(inputs))

    def test_folds_without_a_checkpoint_are_passed_over(self, folder: Path) -> None:
        (folder / "fold_2").mkdir()
        assert len(opened(folder).network.folds) == 2

    def test_separate_folds_are_no_single_network(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"\[0, 1\] are networks of their own.*ensemble: true"):
            opened(folder, folds=[0, 1])

    def test_a_fold_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(ModelError, match="holds no fold_3; fold_0, fold_1 is there"):
            opened(folder, folds=3)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"factory": "a:b", "folds": 0}, "belong to an nnunet folder"),
            ({"nnunet": "a", "folds": [0, 0]}, "name one twice"),
            ({"nnunet": "a", "weights": "w.pt"}, "brings its weights"),
            ({"nnunet": "a", "checkpoint": "../../w.pth"}, "pattern"),
            ({"nnunet": "a", "folds": "some"}, "all"),
        ],
    )
    def test_contradictions(self, fields: dict[str, Any], words: str) -> None:
        with pytest.raises(ValidationError, match=words):
            ModelSpec(**fields)


class Evil:
    def __reduce__(self):
        return (Path("ran").touch, ())


class TestRefused:
    def test_a_checkpoint_that_runs_code(self, tmp_path: Path, monkeypatch) -> None:
        folder = written(tmp_path)
        file = folder / "fold_0/checkpoint_final.pth"
        content = torch.load(file, weights_only=False)
        torch.save({**content, "logging": Evil()}, file)
        with pytest.raises(ModelError, match=r"holds more than tensors.*--trust"):
            opened(folder)

    def test_an_architecture_that_is_no_network(self, tmp_path: Path) -> None:
        content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
        stated = content["configurations"]["3d_fullres"]["architecture"]
        stated["network_class_name"] = "subprocess.Popen"
        with pytest.raises(ModelError, match=r"subprocess belongs to Python.*--trust"):
            opened(written(tmp_path, content))
        stated["network_class_name"] = plain_conv_unet.MODULE + ".PlainConvUNet"
        stated["arch_kwargs"]["conv_op"] = "os.system"
        with pytest.raises(ModelError, match=r"conv_op is 'os.system', which is no layer"):
            opened(written(tmp_path, content))

    @pytest.mark.parametrize(
        ("place", "value", "words"),
        [
            ("previous_stage", "3d_lowres", "second stage of a cascade.*prediction of 3d_lowres"),
            ("preprocessor_name", "MyPreprocessor", "MyPreprocessor; DefaultPreprocessor are"),
            ("normalization_schemes", ["Mine"], "normalizes by Mine; ZScoreNormalization,"),
            ("resampling_fn_data", "resample_torch_fornnunet", "resample_torch_fornnunet; resamp"),
            ("use_mask_for_norm", [False] * 2, "for 1 and 2 channels, and dataset.json names 1"),
            ("patch_size", [8], "has windows of"),
            ("spacing", None, "states no spacing"),
        ],
    )
    def test_configurations(self, tmp_path: Path, place: str, value: Any, words: str) -> None:
        content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
        content["configurations"]["3d_fullres"][place] = value
        with pytest.raises(ModelError, match=words):
            opened(written(tmp_path, content))

    @pytest.mark.parametrize(
        ("place", "value", "words"),
        [
            ("image_reader_writer", "MyIO", "reads images by MyIO"),
            ("label_manager", "Mine", "decodes labels by Mine"),
            ("transpose_forward", [0, 0, 1], "transposes axes by"),
        ],
    )
    def test_plans(self, tmp_path: Path, place: str, value: Any, words: str) -> None:
        content = folders.plans("3d_fullres", folders.configuration(PATCH, SPACING))
        with pytest.raises(ModelError, match=words):
            opened(written(tmp_path, {**content, place: value}))

    def test_weights_of_another_architecture(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"fold_0/checkpoint_final.pth do not fit.*nnUNetTrai"):
            opened(written(tmp_path, networks={0: network(outputs=5)}))

    def test_incomplete_folders(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no trained folder of nnU-Net v2: there is no plans"):
            opened(tmp_path)
        (tmp_path / "plans.pkl").touch()
        with pytest.raises(ModelError, match=r"plans.pkl beside it is of nnU-Net v1"):
            opened(tmp_path)
        folder = written(tmp_path / "b", networks={})
        with pytest.raises(ModelError, match="holds no trained fold"):
            opened(folder)
        (folder / "plans.json").write_text("[1")
        with pytest.raises(ModelError, match=r"plans.json holds no JSON"):
            opened(folder)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ({"0": "background"}, "name no background"),
            ({"background": 0, "tumor": 3}, r"labels are \[0, 3\], and not 0, 1, 2"),
            ({"background": 0, "tumor": "one"}, "the label of 'tumor' is no whole number"),
        ],
    )
    def test_labels(self, tmp_path: Path, labels: Any, words: str) -> None:
        with pytest.raises(ModelError, match=words):
            opened(written(tmp_path, labels=labels))

    def test_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path)
        monkeypatch.setitem(__import__("sys").modules, plain_conv_unet.PACKAGE, None)
        monkeypatch.delitem(__import__("sys").modules, f"{plain_conv_unet.PACKAGE}.architectures")
        with pytest.raises(ModelError, match=r"pip install voxplain\[nnunet\]"):
            opened(folder)


class TestLoadModel:
    def test_a_prediction_lies_on_the_scan(self, tmp_path: Path) -> None:
        from voxplain import predict

        loaded = load_model(nnunet=written(tmp_path / "m"))
        data = torch.zeros(1, 12, 10, 9)
        data[0, 2:11, 1:9, 1:8] = torch.randn(9, 8, 7).cumsum(0)
        image = Image(data, Grid.default((12, 10, 9), (1.0, 0.8, 1.5)))
        prepared = loaded.prepare(image)
        assert prepared.grid.shape == (5, 6, 9)
        found = predict(loaded.model, prepared, "volume:1")
        assert found.labels.shape == (12, 10, 9)
        assert not found.labels[:2].any()  # cropped: background
        restored = prepared.restore(found.output).argmax(0)
        assert torch.equal(found.labels, restored)
        assert set(found.volumes) == {"background", "liver", "tumor"}
        assert loaded.model.remarks[0] in found.remarks

    def test_regions_are_predicted_each_for_itself(self, tmp_path: Path) -> None:
        from voxplain import explain, predict

        folder = written(tmp_path, labels=folders.REGIONS, networks={0: network(3, 2)})
        loaded = load_model(nnunet=folder)
        image = loaded.prepare(Image(torch.randn(1, 8, 8, 6), Grid.default((8, 8, 6), (1, 1, 2))))
        found = predict(loaded.model, image, "volume:0")
        volume = (found.output > 0).sum(dim=(1, 2, 3)) * image.grid.voxel_volume / 1000
        assert [*found.volumes.values()] == pytest.approx(volume.tolist())
        assert [*found.volumes] == ["whole", "core"]
        assert found.score == pytest.approx(
            float(torch.sigmoid(found.output[0]).sum()) * image.grid.voxel_volume / 1000, rel=1e-4
        )
        (map_,) = explain(loaded.model, image, ["saliency"], target="volume:0").values()
        assert any("mirrored" in text for text in map_.stats.warnings)

    def test_what_is_stated_counts(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        loaded = load_model(nnunet=folder, window={"size": 8}, classes=["a", "b", "c"])
        assert loaded.model.window.size == 8
        assert loaded.model.classes == ("a", "b", "c")
        assert len(loaded.preprocess) == 4
