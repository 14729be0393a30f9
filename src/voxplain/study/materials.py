"""What judging the maps of a subject needs beside the maps, put together from the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from voxplain.attribution import Method
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.model import Model
from voxplain.study.check import Checked
from voxplain.study.inputs import LoadedModel
from voxplain.study.plan import Subject


@dataclass(frozen=True, eq=False)
class Materials:
    """What judging needs beside the maps.

    Attributes:
        image: As the network sees it.
        model: The network.
        methods: By the label of their maps.
        mask: Reference ``(*spatial)`` on the source grid; None without.
        references: Other images on the same grid.
        networks: Other networks that see the same image.
    """

    image: Image
    model: Model
    methods: Mapping[str, Method]
    mask: Tensor | None = None
    references: Sequence[Image] = ()
    networks: Sequence[Model] = ()


def materials_of(
    checked: Checked, subject: Subject, image: Image, loaded: LoadedModel
) -> Materials:
    """The materials of a subject of a study.

    Args:
        checked: The study.
        subject: What was explained.
        image: As the network sees it.
        loaded: The network.
    """
    reference = checked.cases[subject.case].reference
    tasks = [task for task in checked.plan.tasks if task.subject is subject]
    return Materials(
        image=image,
        model=loaded.model,
        methods={each.key: each for task in tasks for each in task.methods.values()},
        mask=None if reference is None else read_mask(reference, image.source_grid),
        references=[loaded.prepare(other) for other in checked.references],
        networks=[other.model for other in loaded.alike(checked.models)],
    )
