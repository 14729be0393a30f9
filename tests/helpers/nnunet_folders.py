"""Trained folders of nnU-Net v2, written without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

LABELS: Mapping[str, Any] = {"background": 0, "liver": 1, "tumor": 2}
REGIONS: Mapping[str, Any] = {"background": 0, "whole": [1, 2], "core": [2]}
CT = {"mean": 40.0, "std": 25.0, "percentile_00_5": -20.0, "percentile_99_5": 110.0}


def architecture(dims: int) -> dict[str, Any]:
    """A U-Net of two stages, as plans of nnU-Net 2.3 and later state it."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims, [3] * dims],
            "strides": [[1] * dims, [2] * dims],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(patch: Sequence[int], spacing: Sequence[float], **fields: Any) -> dict[str, Any]:
    """One configuration of a plans file."""
    channels = len(fields.get("normalization_schemes", ["ZScoreNormalization"]))
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_test",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [*patch],
        "median_image_size_in_voxels": [float(side) for side in patch],
        "spacing": [*spacing],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": True,
        "architecture": architecture(len(patch)),
        **fields,
    }


def plans(
    name: str, stated: Mapping[str, Any], transposed: Sequence[int] = (0, 1, 2), **fields: Any
) -> dict[str, Any]:
    """A plans file with one configuration."""
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [*transposed],
        "transpose_backward": [int(axis) for axis in np.argsort(transposed)],
        "configurations": {name: stated},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): CT for channel in range(len(stated["normalization_schemes"]))
        },
        **fields,
    }


def write_folder(
    folder: Path,
    content: Mapping[str, Any],
    networks: Mapping[Any, nn.Module],
    labels: Mapping[str, Any] = LABELS,
    file: str = "checkpoint_final.pth",
) -> Path:
    """A trained folder with one network per fold; checkpoints hold scalars of numpy, as its do."""
    (name,) = content["configurations"]
    schemes = content["configurations"][name]["normalization_schemes"]
    dataset = {
        "channel_names": {str(channel): f"mr {channel}" for channel in range(len(schemes))},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    if labels is REGIONS:
        dataset["regions_class_order"] = [1, 2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold, network in networks.items():
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "epoch_start_timestamps": [1.0]},
            "_best_ema": np.float32(0.5),
            "current_epoch": 2,
            "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / file)
    return folder
