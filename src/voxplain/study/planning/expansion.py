"""Targets for each part of a prediction, once the prediction of a case is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from voxplain.errors import ConfigError, TargetError, VoxplainWarning
from voxplain.records.candidates import Candidates
from voxplain.study.config.case_files import contents
from voxplain.study.config.for_each import ForEach
from voxplain.study.planning.tasks import digest
from voxplain.targets import Target, UnperturbedOutput

NamedTarget = tuple[Target, Target]
"""A target with the files of a case, and the same without file names."""


@dataclass(eq=False)
class Expansion:
    """Makes targets of what predictions hold, and keeps what they hold.

    Attributes:
        known: What an earlier run has found, by the hash of everything that determines it.
        candidates: What this study needs of it, and what is new.
    """

    known: Mapping[str, Candidates]
    candidates: dict[str, Candidates] = field(default_factory=dict)

    def targets(
        self,
        each: ForEach,
        named: ForEach,
        place: str,
        facts: object,
        look: Callable[[], UnperturbedOutput],
    ) -> list[NamedTarget]:
        """The targets of one case and network; a remark says what is left out.

        Args:
            each: With the files of the case.
            named: The same without file names.
            place: The case and the network, for the remark.
            facts: What determines the prediction.
            look: Gives the output of the network for the case, which costs a forward once.

        Raises:
            TargetError: If the output can hold nothing of this kind, or holds none.
        """
        candidates = self._candidates(each, named, facts, look)
        numbers, left_out = each.chosen(candidates), each.left_out(candidates)
        found = len(candidates.sizes) + len(candidates.refused)
        if not numbers:
            reason = f"; left out: {left_out}" if left_out else ""
            warnings.warn(f"{place}: no {each.in_words}{reason}", VoxplainWarning, stacklevel=2)
            raise NothingFoundError(f"no {each.in_words}{reason}")
        if left_out:
            text = f"{len(numbers)} of {found} {each.in_words} are explained; left out: {left_out}"
            warnings.warn(f"{place}: {text}", VoxplainWarning, stacklevel=2)
        return [(each.target(number), named.target(number)) for number in numbers]

    def _candidates(
        self, each: ForEach, named: ForEach, facts: object, look: Callable[[], UnperturbedOutput]
    ) -> Candidates:
        key = digest([facts, named.question, contents(each)])
        if key not in self.candidates:
            known = self.known.get(key)
            self.candidates[key] = each.candidates(look()) if known is None else known
        return self.candidates[key]


class NothingFoundError(TargetError):
    """A prediction that holds nothing of a kind, which is a remark of its case."""


def add_target(targets: dict[str, NamedTarget], found: NamedTarget, case: str) -> None:
    """Adds a target under the name of its files; one that is there already is explained once.

    Raises:
        ConfigError: If another target has this name.
    """
    target, named = found
    before = targets.setdefault(named.slug, found)
    if before[0] != target:
        raise ConfigError(
            f"targets: {before[0]} and {target}, for case {case}, are both called {named.slug!r}; "
            "state a parameter of one of them"
        )
