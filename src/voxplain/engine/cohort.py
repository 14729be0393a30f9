"""Cases that are asked one after another: images, labels and facts, in memory one at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.baselines import foreground
from voxplain.errors import ConfigError
from voxplain.image import Image


@dataclass(frozen=True, eq=False)
class CohortCase:
    """One case of a cohort, as the network sees it.

    Attributes:
        id: Of the case.
        patient: Several cases may be of one.
        image: After the preprocessing of the network.
        labels: Reference labels ``(*spatial)`` on the grid of the image, or None.
        facts: What is known of the whole image, such as a scanner or a class.
    """

    id: str
    patient: str
    image: Image
    labels: Tensor | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)

    @cached_property
    def foreground(self) -> Tensor:
        """The voxels that are not constant background in some channel, ``(*spatial)`` of bool."""
        return torch.stack([foreground(channel.cpu()) for channel in self.image.data]).any(dim=0)


class Cohort:
    """Cases that are read when they are needed, so that memory does not grow with their number.

    Args:
        patients: The patient of every case by the id of the case, in order.
        load: Reads a case; called again in every pass over the cohort.
    """

    def __init__(self, patients: Mapping[str, str], load: Callable[[str], CohortCase]) -> None:
        self._patients, self._load = dict(patients), load

    @classmethod
    def of(cls, cases: Sequence[CohortCase]) -> Cohort:
        """A cohort of cases that are in memory.

        Raises:
            ConfigError: If two of them have the same id.
        """
        known = {case.id: case for case in cases}
        if len(known) < len(cases):
            raise ConfigError("two cases of the cohort have the same id")
        return cls({case.id: case.patient for case in cases}, known.__getitem__)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the cases, in order."""
        return tuple(self._patients)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of every case, in order."""
        return tuple(self._patients.values())

    def __len__(self) -> int:
        return len(self._patients)

    def __iter__(self) -> Iterator[CohortCase]:
        """Reads case after case."""
        return map(self._load, self._patients)

    def __getitem__(self, case: str) -> CohortCase:
        """Reads one case.

        Raises:
            KeyError: If there is none with this id.
        """
        if case not in self._patients:
            raise KeyError(case)
        return self._load(case)

    def only(self, cases: Sequence[str]) -> Cohort:
        """The same with some of the cases, in the order of the cohort."""
        chosen = {*cases}
        kept = {case: patient for case, patient in self._patients.items() if case in chosen}
        return Cohort(kept, self._load)

    def split(self, held_out: float = 0.5, seed: int = 0) -> tuple[Cohort, Cohort]:
        """Cases to select on, and held-out cases to score; no patient is in both.

        Args:
            held_out: Share of the patients that are held out; at least one where there are two.
            seed: Of the draw.
        """
        patients = list(dict.fromkeys(self._patients.values()))
        random.Random(seed).shuffle(patients)
        count = min(len(patients) - 1, max(1, round(held_out * len(patients))))
        kept = {*patients[: max(0, count)]}
        scored = [case for case, patient in self._patients.items() if patient in kept]
        return self.only([case for case in self.ids if case not in {*scored}]), self.only(scored)
