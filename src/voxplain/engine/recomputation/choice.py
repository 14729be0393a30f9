"""Which parts of a network are computed again: those that leave the least to be held at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from voxplain.engine.acceleration.forward_trace import lies_in
from voxplain.engine.recomputation.saved_profile import SavedProfile
from voxplain.engine.recomputation.stages import Stage, is_chain

_MOST_LIMITS = 48
"""Sizes of the largest stage that are tried."""
_LEAST_GAIN = 1 / 200
"""Share of all that is saved that a stage has to spare."""


@dataclass(frozen=True)
class _PossibleStage:
    """A stage that is possible.

    Attributes:
        stage: The stage.
        inner: Bytes that it saves when it is computed again.
        gain: Bytes that are not kept if it is.
    """

    stage: Stage
    inner: int
    gain: int


class StageChoice:
    """Chooses the stages of one network.

    What a backward pass holds at most is what is kept (outside of the stages, and the inputs of
    these) and what the largest stage saves when it is computed again. For limits on the latter,
    the stages that spare most are found by dynamic programming over the tree of modules, and the
    limit is taken whose stages leave the smallest sum.

    Args:
        network: The network.
        profile: What it saves.
        opened: Paths of modules that may lie in no stage, as they are tapped; a stage of their own
            is possible, since taps read what enters and leaves it.
    """

    def __init__(
        self, network: nn.Module, profile: SavedProfile, opened: Collection[str] = ()
    ) -> None:
        self._modules, self._profile = dict(network.named_modules()), profile
        self._paths = {module: path for path, module in self._modules.items()}
        names = dict(network.named_modules(remove_duplicate=False))
        tapped = {self._paths[names[name]] for name in opened if name in names}
        self._chains = {path: self._chain(path) for path in self._modules}
        self._open = tapped | {path for path, each in profile.modules.items() if each.hooked}
        self._within: dict[str, Counter[int]] = {path: Counter() for path in self._modules}
        """By path, how many of the savers of each storage lie in a module."""
        for number, savers in profile.savers.items():
            for saver in savers:
                for path in _with_parents(saver):
                    self._within[path][number] += 1

    def stages(self) -> tuple[Stage, ...]:
        """The stages that leave least; none where they would spare nothing."""
        sizes = sorted({each.inner for each in self._candidates.values()})
        step = max(1, -(-len(sizes) // _MOST_LIMITS))
        found: list[tuple[Stage, ...]] = [(), *(self._best(limit) for limit in sizes[::-step])]
        return min(found, key=lambda stages: (self.held(stages), len(stages)))

    def held(self, stages: Sequence[Stage]) -> int:
        """Bytes that a backward pass holds at most, beside what a forward needs anyway."""
        profile, of_stages = self._profile, [self._counts(stage) for stage in stages]
        covered = sum(of_stages, Counter[int]())
        kept = {
            number for number, savers in profile.savers.items() if covered[number] < len(savers)
        }
        kept.update(*map(self._given, stages))
        inner = [profile.bytes_of(counts.keys() - kept) for counts in of_stages]
        return profile.bytes_of(kept) + max(inner, default=0)

    @cached_property
    def _candidates(self) -> dict[Stage, _PossibleStage]:
        stages = [stage for path in self._modules for stage in self._possible(path)]
        least = self._profile.saved * _LEAST_GAIN
        return {stage: each for stage in stages if (each := self._candidate(stage)).gain > least}

    def _candidate(self, stage: Stage) -> _PossibleStage:
        profile, given, counts = self._profile, self._given(stage), self._counts(stage)
        inner = counts.keys() - given
        spared = {number for number in inner if counts[number] == len(profile.savers[number])}
        extra = given - profile.savers.keys()
        gain = profile.bytes_of(spared) - profile.bytes_of(extra)
        return _PossibleStage(stage, profile.bytes_of(inner), gain)

    def _possible(self, path: str) -> Iterator[Stage]:
        """The module itself, and neighboring children of an ``nn.Sequential``."""
        if path and self._is_possible(path):
            yield Stage(path)
        children = self._chains[path]
        for first in range(len(children)):
            if self._profile.modules[children[first]].writes:
                continue
            for stop in range(first + 1, len(children) + 1):
                if not self._may_join(children[stop - 1]):
                    break
                last = self._profile.modules[children[stop - 1]]
                if last.returns_tensors and stop - first > 1:
                    yield Stage(path, (first, stop))

    def _is_possible(self, path: str) -> bool:
        module = self._profile.modules[path]
        return (
            module.calls == 1
            and bool(module.given)
            and module.pure
            and module.returns_tensors
            and not module.writes
            and not any(lies_in(other, path) for other in self._open - {path})
        )

    def _may_join(self, path: str) -> bool:
        module = self._profile.modules[path]
        is_open = any(lies_in(other, path) for other in self._open)
        return module.calls == 1 and module.pure and not is_open

    def _chain(self, path: str) -> tuple[str, ...]:
        """Paths of the children of an ``nn.Sequential`` that is called once; else none."""
        module = self._modules[path]
        if not is_chain(module) or self._profile.modules[path].calls != 1:
            return ()
        return tuple(self._paths[child] for child in module._modules.values() if child is not None)

    def _best(self, limit: int) -> tuple[Stage, ...]:
        """The stages, none larger than a limit, that spare most."""

        def best(path: str) -> tuple[int, tuple[Stage, ...]]:
            options = [inside(path)]
            if (own := self._candidates.get(Stage(path))) and own.inner <= limit:
                options.append((own.gain, (own.stage,)))
            return max(options, key=lambda option: option[0])

        def inside(path: str) -> tuple[int, tuple[Stage, ...]]:
            if chain := self._chains[path]:
                return along(path, [best(child) for child in chain])
            found = [best(child) for child in self._children(path)]
            return sum(gain for gain, _ in found), tuple(each for _, some in found for each in some)

        def along(
            path: str, alone: list[tuple[int, tuple[Stage, ...]]]
        ) -> tuple[int, tuple[Stage, ...]]:
            """The best stages of the first children, for one child more each time."""
            known: list[tuple[int, tuple[Stage, ...]]] = [(0, ())]
            for stop, (gain, stages) in enumerate(alone, start=1):
                options = [(known[-1][0] + gain, known[-1][1] + stages)]
                for first in range(stop - 1):
                    run = self._candidates.get(Stage(path, (first, stop)))
                    if run and run.inner <= limit:
                        before = known[first]
                        options.append((before[0] + run.gain, (*before[1], run.stage)))
                known.append(max(options, key=lambda option: option[0]))
            return known[-1]

        return best("")[1]

    def _children(self, path: str) -> list[str]:
        """Paths of the children that are first met here."""
        children = self._modules[path].named_children()
        paths = [f"{path}.{name}" if path else name for name, _ in children]
        return [each for each in paths if each in self._modules]

    def _counts(self, stage: Stage) -> Counter[int]:
        """How many of the savers of each storage lie in a stage."""
        if stage.children is None:
            return self._within[stage.path]
        children = self._chains[stage.path][slice(*stage.children)]
        return sum((self._within[child] for child in children), Counter[int]())

    def _given(self, stage: Stage) -> frozenset[int]:
        path = stage.path
        if stage.children is not None:
            path = self._chains[path][stage.children[0]]
        return self._profile.modules[path].given


def _with_parents(path: str) -> Iterator[str]:
    """A path, and those of all modules that it lies in."""
    yield path
    while path:
        path = path.rpartition(".")[0]
        yield path
