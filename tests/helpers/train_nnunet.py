"""Plans, preprocesses and trains small networks with nnU-Net itself: ``train_nnunet.py FOLDER``.

Its results are under ``FOLDER/results``: a data set of labels and one of regions.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy import ndimage

from helpers.torchvision_operators import define_operators

NAMES = {1: "Dataset001_Labels", 2: "Dataset002_Regions"}
LABELS = {
    1: {"labels": {"background": 0, "shell": 1, "core": 2}},
    2: {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
}
ITERATIONS = 60
PROCESSES = "nnUNet_n_proc_DA"


def volume(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A ball in a ball in noise, with sides of zeros; and its labels."""
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    middle = np.array(shape) / 2 + random.uniform(-2, 2, 3)
    distance = np.linalg.norm((places - middle) * [1, 1, 2], axis=-1)
    labels = (distance < 9).astype(np.uint8) + (distance < 5)
    values = ndimage.gaussian_filter(random.normal(size=shape), 1) + labels * 2.0 + 3
    for array in (values, labels):
        array[:3] = 0
        array[:, -2:] = 0
    return values.astype(np.float32), labels.astype(np.uint8)


def write_dataset(folder: Path, number: int) -> None:
    """The raw data set, with voxels three times as long along one axis as along the others."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    affine = np.diag([1.0, 1.1, 3.5, 1.0])
    for case in range(6):
        values, labels = volume(case, (26 + case, 24, 14))
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"imagesTr/c{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"labelsTr/c{case}.nii.gz")
    stated = {"channel_names": {"0": "T1"}, "numTraining": 6, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**stated, **LABELS[number]}))


def train(preprocessed: Path, configuration: str, fold: int) -> None:
    """One short epoch of the trainer of nnU-Net."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    plans["continue_training"] = False
    torch.manual_seed(fold)
    trainer = nnUNetTrainer(plans, configuration, fold, dataset, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_val_iterations_per_epoch = 1, 1
    trainer.num_iterations_per_epoch = ITERATIONS
    trainer.run_training()


def main(root: Path) -> None:
    """Both data sets from raw files to checkpoints."""
    for name, folder in (("raw", "raw"), ("preprocessed", "pre"), ("results", "results")):
        os.environ[f"nnUNet_{name}"] = str(root / folder)
    os.environ[PROCESSES] = "1"
    define_operators()
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    for number, name in NAMES.items():
        write_dataset(root / "raw" / name, number)
        api.extract_fingerprints([number], num_processes=1)
        api.plan_experiments([number], gpu_memory_target_in_gb=1)
        file = root / "pre" / name / "nnUNetPlans.json"
        plans = json.loads(file.read_text())
        for stated in plans["configurations"].values():
            if "architecture" in stated:
                arguments = stated["architecture"]["arch_kwargs"]
                arguments["features_per_stage"] = [8] * arguments["n_stages"]
        file.write_text(json.dumps(plans))
        api.preprocess([number], configurations=["3d_fullres", "2d"], num_processes=[1, 1])
    os.environ[PROCESSES] = "0"  # the data come from this process
    for number, configuration, fold in (
        (1, "3d_fullres", 0), (1, "3d_fullres", 1), (1, "2d", 0), (2, "3d_fullres", 0),
    ):  # fmt: skip
        train(root / "pre" / NAMES[number], configuration, fold)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
