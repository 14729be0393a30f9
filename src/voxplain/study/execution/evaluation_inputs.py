"""What judging the maps of a subject needs beside the maps, put together from the study."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from voxplain.engine.method import Method
from voxplain.errors import VoxplainWarning
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.metrics import OtherNetwork
from voxplain.models.model import Model
from voxplain.study.config.cases import CaseConfig
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.inputs import LoadedModel
from voxplain.study.planning.tasks import Combination
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """What judging needs beside the maps.

    Attributes:
        image: As the network sees it.
        model: The network.
        methods: By the label of their maps.
        mask: Reference ``(*spatial)`` on the source grid; None without.
        references: Other images on the same grid.
        networks: Other networks that see the same image, and how they differ.
        truth: The class that is right for the whole image; None where unknown.
    """

    image: Image
    model: Model
    methods: Mapping[str, Method]
    mask: Tensor | None = None
    references: Sequence[Image] = ()
    networks: Sequence[OtherNetwork] = ()
    truth: int | None = None


def evaluation_inputs(
    checked: CheckedStudy, combination: Combination, image: Image, loaded: LoadedModel
) -> EvaluationInputs:
    """The materials of a subject of a study.

    Args:
        checked: The study.
        combination: What was explained.
        image: As the network sees it.
        loaded: The network.
    """
    case = checked.cases[combination.case]
    tasks = [task for task in checked.plan.tasks if task.combination is combination]
    return EvaluationInputs(
        image=image,
        model=loaded.model,
        methods={each.key: each for task in tasks for each in task.methods.values()},
        mask=compared_with(case, combination.target, image) if case.reference else None,
        references=[loaded.prepare(other) for other in checked.references],
        networks=loaded.networks(checked.models),
        truth=case.truth,
    )


def compared_with(case: CaseConfig, target: Target, image: Image) -> Tensor:
    """Where the reference of a case says that what is explained is, ``(*spatial)`` bool.

    Args:
        case: With a reference.
        target: What is explained.
        image: The case.

    Raises:
        InputError: If the reference lies on another grid.
    """
    labels = read_mask(str(case.reference), image.source_grid)
    held = [label for label in np.unique(labels.numpy()).tolist() if label]
    if case.reference_label is not None:
        return labels == case.reference_label
    explained = getattr(target, "label", None)
    if not isinstance(explained, int) or explained not in held:
        return labels != 0
    if len(held) > 1:
        listed = ", ".join(map(str, held))
        warnings.warn(
            f"the reference holds the labels {listed}; maps are compared with {explained}, the "
            "class of the target (reference_label can say otherwise)",
            VoxplainWarning,
            stacklevel=2,
        )
    return labels == explained
