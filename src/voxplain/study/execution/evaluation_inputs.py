"""What the evaluation of a combination needs beside its maps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxplain.engine.method import Method
from voxplain.errors import VoxplainWarning
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.metrics import OtherNetwork
from voxplain.models.model import Model
from voxplain.study.config.cases import CaseConfig
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """What the evaluation of a combination needs beside its maps.

    Attributes:
        image: After the preprocessing of the network.
        model: The network.
        methods: By the label of their maps.
        mask: Reference ``(*spatial)`` on the source grid; None without.
        references: Other images after the same preprocessing.
        networks: Other networks with the same preprocessing, and how they differ.
        ignore: The value of ``mask`` whose voxels are left out; None for none.
        truth: The true class of the whole image; None where it is not known.
    """

    image: Image
    model: Model
    methods: Mapping[str, Method]
    mask: Tensor | None = None
    references: Sequence[Image] = ()
    networks: Sequence[OtherNetwork] = ()
    ignore: int | None = None
    truth: int | None = None


def reference_mask(case: CaseConfig, target: Target, image: Image) -> Tensor | None:
    """The part of the reference of a case that maps are compared with, ``(*spatial)``.

    Args:
        case: With or without a reference.
        target: What is explained.
        image: The case.

    Returns:
        The voxels of ``reference_label``; else of the class of the target, where it occurs; else
        of every label. Bool; where the case states a ``reference_ignore``, integers with this
        value where it is ignored. None for a case without a reference.

    Raises:
        InputError: If the reference lies on another grid.
    """
    if case.reference is None:
        return None
    ignore = case.reference_ignore
    labels = read_mask(str(case.reference), image.source_grid, ignore=ignore)
    if ignore is None:
        return _compared(labels, case, target)
    inside = _compared(torch.where(labels == ignore, 0, labels), case, target)
    return torch.where(labels == ignore, ignore, inside.long() * (ignore + 1))


def _compared(labels: Tensor, case: CaseConfig, target: Target) -> Tensor:
    if case.reference_label is not None:
        return labels == case.reference_label
    present = [label for label in np.unique(labels.numpy()).tolist() if label]
    explained = getattr(target, "label", None)
    if not isinstance(explained, int) or explained not in present:
        return labels != 0
    if len(present) > 1:
        listed = ", ".join(map(str, present))
        warnings.warn(
            f"the reference holds the labels {listed}; maps are compared with {explained}, the "
            "class of the target (reference_label can say otherwise)",
            VoxplainWarning,
            stacklevel=2,
        )
    return labels == explained
