"""The MNI152 template and its tissues, read from the files that nilearn carries in its wheel."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

TISSUES = ("background", "CSF", "gray matter", "white matter")
"""The classes of the demo network's four output channels (the order of FSL FAST)."""


@dataclass(frozen=True)
class Template:
    """The skull-stripped average brain of 152 people on its 1 mm grid (RAS+).

    Attributes:
        image: ``(197, 233, 189)``, T1 intensity from 0 to 1; exactly 0 outside the brain.
        tissues: ``(4, 197, 233, 189)``, the probability of each of :data:`TISSUES`.
        affine: 4x4, voxel index to MNI millimeters.
    """

    image: NDArray[np.float32]
    tissues: NDArray[np.float32]
    affine: NDArray[np.float64]


def read_template() -> Template:
    """The template with tissue probabilities that sum to one in every voxel.

    Gray and white matter are the published ICBM 2009a maps; CSF is the rest of the brain.
    """
    brain = nibabel.load(template_path("t1"))
    image, gray, white = (_unit_range(template_path(kind)) for kind in ("t1", "gm", "wm"))
    inside = image > 0
    gray, white = gray * inside, white * inside
    csf = np.clip(1 - gray - white, 0, None) * inside
    tissues = np.stack([~inside, csf, gray, white]).astype(np.float32)
    return Template(image, tissues / tissues.sum(axis=0), brain.affine)


def template_path(kind: str) -> Path:
    """Where nilearn keeps a file of the template: ``t1``, ``gm`` or ``wm``.

    Raises:
        FileNotFoundError: If nilearn is not installed (``pip install voxplain[demo]``).
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("the template comes with nilearn: pip install voxplain[demo]")
    data = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    return data / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"


def template_labels(template: Template) -> NDArray[np.int64]:
    """The most probable of :data:`TISSUES` in each 1 mm voxel, ``(197, 233, 189)``."""
    return template.tissues.argmax(axis=0)


def smoothed(template: Template, millimeters: float) -> tuple[Tensor, Tensor]:
    """Image ``(1, 1, *spatial)`` and tissues ``(1, 4, *spatial)`` after a Gaussian blur.

    Args:
        template: The template at 1 mm.
        millimeters: Standard deviation of the blur; about 0.8 avoids aliasing at 2 mm.
    """
    image = gaussian_filter(template.image, millimeters)
    tissues = np.stack([gaussian_filter(tissue, millimeters) for tissue in template.tissues])
    return torch.from_numpy(image)[None, None], torch.from_numpy(tissues)[None]


def _unit_range(path: Path) -> NDArray[np.float32]:
    data = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    return data / data.max()
