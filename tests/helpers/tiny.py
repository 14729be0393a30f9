"""A study small enough for tests: bright blobs, and a network that segments what is bright."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

NETWORK = '''
import torch
from torch import nn


class Bright(nn.Module):
    """Class 1 where the neighborhood is bright; class 2 nowhere."""

    def __init__(self, channels=1):
        super().__init__()
        self.features = nn.Conv3d(channels, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Conv3d(4, 3, 1)

    def forward(self, x):
        return self.head(self.act(self.features(x)))


def build(channels=1) -> nn.Module:
    net = Bright(channels)
    with torch.no_grad():
        for part in net.parameters():
            part.zero_()
        net.features.weight += 1 / (27 * channels)
        net.features.weight += 0.01 * torch.linspace(-1, 1, net.features.weight.numel()).view_as(
            net.features.weight
        )
        net.head.weight[1] += 1.0
        net.head.bias[1] = -2.0
        net.head.bias[2] = -100.0
    return net
'''

SHAPE = (14, 12, 10)
AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -8], [0, 0, 3.0, 4], [0, 0, 0, 1]])


@dataclass
class TinyStudy:
    """A folder with images, weights and a study file.

    Attributes:
        folder: Holds everything; the run goes to ``folder / "run"``.
        config: What the study file says; change it and :meth:`write` it.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The study file."""
        return self.folder / "study.yaml"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def packages(self) -> Path:
        """A folder of installed packages, whose networks need no trust."""
        return self.folder / "site-packages"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a process that imports what this one does, and the network of the study."""
        path = [str(self.packages), *filter(None, sys.path)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def write(self, **changes: Any) -> Path:
        """Writes the study file with some keys replaced."""
        self.config.update(changes)
        self.file.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        return self.file

    def files(self, below: Path | None = None) -> dict[str, int]:
        """Every file with the time of its last change."""
        root = below or self.folder
        return {
            str(path.relative_to(root)): path.stat().st_mtime_ns
            for path in sorted(root.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


def blob(center: tuple[int, ...], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A bright ball on a dim ground, float32."""
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    distance = sum((axis - at) ** 2 for axis, at in zip(axes, center, strict=True))
    noise = np.random.default_rng(sum(center)).normal(0, 0.02, shape)
    return (0.1 + 2.0 * np.exp(-distance / 12) + noise).astype(np.float32)


def save(path: Path, array: np.ndarray) -> Path:
    """Writes an array as NIfTI on an anisotropic, turned grid."""
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return path


def write_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    """A study of two cases with two methods."""
    study = TinyStudy(folder)
    study.packages.mkdir(parents=True)
    (study.packages / "tiny_net.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.syspath_prepend(str(study.packages))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("tiny_net", None)
    save(folder / "first.nii.gz", blob((6, 6, 5)))
    save(folder / "second.nii.gz", blob((8, 4, 6)))
    save_weights(folder / "net.safetensors")
    study.write(
        cases=[{"id": "a", "image": "first.nii.gz"}, {"id": "b", "image": "second.nii.gz"}],
        models=[{"name": "net", "factory": "tiny_net:build", "weights": "net.safetensors"}],
        target={"kind": "pixelwise", "label": 1},
        methods=["saliency", {"name": "integrated_gradients", "steps": 4}],
        output="run",
    )
    return study


def save_weights(path: Path) -> None:
    """The weights of the network, as safetensors."""
    import tiny_net  # type: ignore[import-not-found]

    state = {name: part.clone() for name, part in tiny_net.build().state_dict().items()}
    save_file(state, path)


def pickled(path: Path) -> None:
    """A network as a pickle, which runs code when it is loaded."""
    import tiny_net

    torch.save(tiny_net.build(), path)
