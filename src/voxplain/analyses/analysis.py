"""The declaration of an analysis of a network, what it is given, and the registry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from voxplain.concepts.bank import ConceptBank
from voxplain.declaration import Declaration
from voxplain.engine.cohort import Cohort
from voxplain.models.model import Model
from voxplain.registry import Registry
from voxplain.targets import Target

RESULT = "result.json"
"""The file in the folder of an analysis that holds its results; figures and maps lie beside it."""


@dataclass(frozen=True, eq=False)
class AnalysisInputs:
    """What an analysis is given.

    Attributes:
        model: The network.
        cohort: The cases of the study, as the network sees them.
        concepts: Of the study; empty if it names none.
        target: What is explained; None for analyses that need none.
        folder: For its files, which it makes if it is not there.
        seed: Of random draws.
        progress: Called with the passes that are done, and all of them.
    """

    model: Model
    cohort: Cohort
    concepts: ConceptBank
    target: Target | None
    folder: Path
    seed: int
    progress: Callable[[int, int], None]


@dataclass(frozen=True)
class AnalysisCost:
    """What an analysis takes, before it starts.

    Attributes:
        passes: Through the network, for images of the size of the cases.
        forwards: How many of them are forwards without a backward pass.
        words: What they are for.
    """

    passes: int
    forwards: int
    words: str


class Analysis(Declaration):
    """An analysis as a study names it; its fields are its parameters.

    Attributes:
        needs_target: Whether it asks about the target of the study.
        needs_concepts: Whether it cannot do without concepts.
        revision: Raised whenever equal parameters give other results.
    """

    needs_target: ClassVar[bool] = False
    needs_concepts: ClassVar[bool] = False
    revision: ClassVar[int] = 1

    label: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="its name in results"
    )

    @property
    def key(self) -> str:
        """Its name in results and file names."""
        return self.label or self.name

    def asked_about(self, targets: Sequence[Target]) -> Self:
        """The analysis as a study with these targets does it; the same unless it can use them.

        Args:
            targets: Of the study, without those that differ from case to case.
        """
        return self

    @abstractmethod
    def cost(self, cases: int) -> AnalysisCost:
        """What it takes for so many cases."""

    @abstractmethod
    def perform(self, inputs: AnalysisInputs) -> None:
        """Does it, and writes :data:`RESULT` and what belongs to it into the folder.

        Raises:
            VoxplainError: In words, if the network or the cases do not fit.
        """


analyses: Registry[Analysis] = Registry("analysis", "voxplain.analyses")
"""Every analysis by its name."""


def register(cls: type[Analysis]) -> type[Analysis]:
    """Adds an analysis to the registry under its name."""
    return analyses.add(cls.title(), cls)


parse_analysis = analyses.parse
"""An analysis from a name, a mapping with ``name`` and parameters, or an analysis."""
