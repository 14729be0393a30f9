"""The prediction equals that of nnU-Net's own predictor, with mirroring off.

It is no part of the environment for tests, as it brings torchvision, whose build for CUDA does not
load beside torch for the CPU: these run in an environment of their own (``pip install nnunetv2``).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from helpers import nnunet_folders as folders
from helpers.torchvision_operators import define_operators
from helpers.train_nnunet import NAMES, volume
from voxplain import predict, read_image
from voxplain.loading import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed"
    ),
]

ANISOTROPIC = np.diag([1.2, 0.9, 3.6, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [20, 10, 30], degrees=True).as_matrix() @ np.diag(
    [1.3, -1.1, 2.7]
)
OBLIQUE[:3, 3] = [5, -7, 3]


@dataclass
class Both:
    """One image, predicted by nnU-Net and by voxplain, on the axes of the file."""

    prepared: tuple[np.ndarray, np.ndarray]
    probabilities: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, torch.Tensor | None]
    inside: np.ndarray

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each class or region is predicted by either."""
        theirs, ours = (values > 0.5 for values in self.probabilities)
        if self.labels[1] is not None:
            count = len(self.probabilities[0])
            theirs = np.stack([self.labels[0] == label for label in range(count)])
            ours = np.stack([self.labels[1].numpy() == label for label in range(count)])
        return theirs & self.inside, ours & self.inside

    def dice(self) -> list[float]:
        pairs = zip(*self.masks(), strict=True)
        return [
            2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() else float(not b.any())
            for a, b in pairs
        ]

    def sizes(self) -> list[int]:
        return [int(mask.sum()) for mask in self.masks()[0]]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    define_operators()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "/nowhere")


class Single:
    """torch with single precision in place of half."""

    half = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def both(folder: Path, files: list[Path], folds: tuple[int, ...], exact: bool = False) -> Both:
    """Both predictions; ``exact`` to let nnU-Net sum up windows in single precision.

    It does in half, which leaves few digits in the corners, where the weights of windows are small.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    reader = plans.image_reader_writer_class()
    image, properties = reader.read_images([str(file) for file in files])
    stated = {"spacing": properties["spacing"]}
    prepared, _, own = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, None, dict(stated), plans, configuration, predictor.dataset_json
    )
    with patch("nnunetv2.inference.predict_from_raw_data.torch", Single() if exact else torch):
        labels, probabilities = predictor.predict_single_npy_array(image, stated, None, None, True)
    loaded = load_model(nnunet=folder, folds=folds, ensemble=True)
    ours = loaded.prepare(read_image(files))
    found = predict(loaded.model, ours, "volume:1")
    restored = ours.restore(found.output)
    regions = loaded.model.activation == "sigmoid"
    inside = np.zeros([image.shape[1 + axis] for axis in plans.transpose_forward], bool)
    inside[tuple(slice(*ends) for ends in own["bbox_used_for_cropping"])] = True
    return Both(
        (prepared, ours.data.numpy()),
        (
            probabilities.transpose(0, 3, 2, 1),
            (torch.sigmoid(restored) if regions else torch.softmax(restored, 0)).numpy(),
        ),
        (labels.transpose(2, 1, 0), found.labels),
        inside.transpose(plans.transpose_backward).transpose(2, 1, 0),
    )


def scan(folder: Path, affine: np.ndarray, channels: int = 1) -> list[Path]:
    files = [folder / f"scan_{channel:04d}.nii.gz" for channel in range(channels)]
    for seed, file in enumerate(files):
        values = volume(seed + 7, (31, 27, 13))[0]
        nibabel.save(nibabel.Nifti1Image(values * 20, affine), file)
    return files


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "slices resampled one by one": {"patch": (8, 12, 12), "spacing": (3.0, 1.0, 1.0)},
    "CT and masked, transposed": {
        "patch": (12, 8, 12),
        "spacing": (1.0, 1.6, 1.4),
        "transposed": (1, 0, 2),
        "affine": OBLIQUE,
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
    },
    "rescaled regions of two folds": {
        "patch": (12, 12, 12),
        "spacing": (2.0, 1.4, 1.0),
        "affine": OBLIQUE,
        "labels": folders.REGIONS,
        "folds": (0, 1),
        "normalization_schemes": ["RescaleTo01Normalization"],
    },
    "larger windows than the image": {"patch": (32, 40, 48), "spacing": (3.6, 0.9, 1.2)},
    "2-D, transposed": {
        "patch": (16, 12),
        "spacing": (1.2, 1.0),
        "transposed": (2, 0, 1),
        "affine": OBLIQUE,
    },
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_untrained_networks_under_many_plans(tmp_path: Path, case: str) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    stated = dict(CONFIGURATIONS[case])
    patch, spacing = stated.pop("patch"), stated.pop("spacing")
    affine, folds = stated.pop("affine", ANISOTROPIC), stated.pop("folds", (0,))
    labels, transposed = stated.pop("labels", folders.LABELS), stated.pop("transposed", (0, 1, 2))
    content = folders.plans(
        f"{len(patch)}d_test", folders.configuration(patch, spacing, **stated), transposed
    )
    channels = len(stated.get("normalization_schemes", "1"))
    outputs = 2 if labels is folders.REGIONS else 3
    described = folders.architecture(len(patch))
    networks = {}
    for fold in folds:
        torch.manual_seed(fold)
        networks[fold] = get_network_from_plans(
            described["network_class_name"],
            described["arch_kwargs"],
            described["_kw_requires_import"],
            channels,
            outputs,
            deep_supervision=False,
        )
    folder = folders.write_folder(tmp_path / "m", content, networks, labels)
    found = both(folder, scan(tmp_path, affine, channels), folds, exact=True)
    np.testing.assert_allclose(*found.prepared, atol=1e-5)
    theirs, ours = (values[:, found.inside] for values in found.probabilities)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert ours.std() > 0.02


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nnunet")
    script = Path(__file__).parents[1] / "helpers/train_nnunet.py"
    paths = os.pathsep.join([str(script.parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(script), str(root)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "results"


TRAINED = pytest.mark.parametrize(
    ("dataset", "configuration", "folds", "affine"),
    [
        (1, "3d_fullres", (0,), ANISOTROPIC),
        (1, "3d_fullres", (0, 1), OBLIQUE),
        (1, "2d", (0,), OBLIQUE),
        (2, "3d_fullres", (0,), OBLIQUE),
    ],
)


def of_trained(
    trained: Path,
    tmp_path: Path,
    number: int,
    name: str,
    folds: tuple[int, ...],
    affine: np.ndarray,
    exact: bool,
) -> Both:
    folder = trained / NAMES[number] / f"nnUNetTrainer__nnUNetPlans__{name}"
    return both(folder, scan(tmp_path, affine), folds, exact)


@TRAINED
def test_labels_and_regions_of_trained_networks(
    trained, tmp_path, dataset, configuration, folds, affine
) -> None:
    found = of_trained(trained, tmp_path, dataset, configuration, folds, affine, exact=False)
    assert min(found.dice()) >= 0.999
    assert sum(size > 20 for size in found.sizes()) >= 2


@TRAINED
def test_probabilities_of_trained_networks(
    trained, tmp_path, dataset, configuration, folds, affine
) -> None:
    found = of_trained(trained, tmp_path, dataset, configuration, folds, affine, exact=True)
    np.testing.assert_allclose(*found.prepared, atol=1e-5)
    theirs, ours = (values[:, found.inside] for values in found.probabilities)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
