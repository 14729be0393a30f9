"""One small harness: contestants take turns in one process, medians are compared.

The turns matter on a shared machine: whatever else runs slows all contestants alike. Wall-clock
and CPU time are both taken; the second is hardly disturbed by neighbors.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Work = Callable[[], object]


@dataclass
class Timing:
    """What the turns of one contestant took, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median of the wall clock."""
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """Median of the CPU time of all threads."""
        return statistics.median(self.cpu)

    def times(self, other: Timing) -> tuple[float, float]:
        """How many times longer this took than another, by wall clock and by CPU time."""
        return self.seconds / other.seconds, self.cpu_seconds / other.cpu_seconds


def race(
    contestants: Mapping[str, Work], repeats: int = 5, warm_up: Mapping[str, Work] | None = None
) -> dict[str, Timing]:
    """Times contestants in turns.

    Args:
        contestants: By name; the order is reversed every other round.
        repeats: Rounds that count.
        warm_up: What to run first instead of a full turn, for those that take minutes.
    """
    for name, work in contestants.items():
        (warm_up or {}).get(name, work)()
    timings = {name: Timing() for name in contestants}
    for turn in range(repeats):
        names = list(contestants) if turn % 2 == 0 else list(reversed(contestants))
        for name in names:
            _clock(contestants[name], timings[name])
    return timings


def fastest(options: Iterable[int], run: Callable[[int], object]) -> int:
    """The option that takes the least CPU time, such as a batch size."""
    timings = race({str(option): lambda option=option: run(option) for option in options}, 2)
    return int(min(timings, key=lambda name: min(timings[name].cpu)))


class Bare(ABC):
    """What a number of passes costs on the bare network, with nothing around it.

    Args:
        network: In evaluation mode; its parameters need no gradient while it is measured.
        image: One point ``(1, C, *spatial)``.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        self.network, self.image = network, image
        self.batch = fastest((1, 2, 4, 8, 16), lambda size: self._run(16, size))

    def of(self, passes: int) -> Work:
        """So many points, in batches of the fastest size."""
        return lambda: self._run(passes, self.batch)

    @abstractmethod
    def once(self, points: Tensor) -> None:
        """One batch."""

    def _run(self, passes: int, batch: int) -> None:
        flags = [(part, part.requires_grad) for part in self.network.parameters()]
        for part, _ in flags:
            part.requires_grad_(False)
        for first in range(0, passes, batch):
            size = min(batch, passes - first)
            self.once(self.image.expand(size, *self.image.shape[1:]).clone())
        for part, required in flags:
            part.requires_grad_(required)


class Floor(Bare):
    """Forward and backward.

    Args:
        network: In evaluation mode.
        image: One point ``(1, C, *spatial)``.
        score: S of an output.
    """

    def __init__(
        self, network: nn.Module, image: Tensor, score: Callable[[Tensor], Tensor]
    ) -> None:
        self.score = score
        super().__init__(network, image)

    def once(self, points: Tensor) -> None:
        """The gradient of the scores."""
        points.requires_grad_(True)
        torch.autograd.grad(self.score(self.network(points)).sum(), points)


class Forwards(Bare):
    """Forward alone."""

    @torch.inference_mode()
    def once(self, points: Tensor) -> None:
        """The output."""
        self.network(points)


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    expected = expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


def cosine(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The smallest cosine between pairs of maps."""
    pairs = zip(found, expected, strict=True)
    return min(
        float(nn.functional.cosine_similarity(left.flatten(), right.detach().flatten(), dim=0))
        for left, right in pairs
    )


def _clock(work: Work, timing: Timing) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    timing.wall.append(time.perf_counter() - wall)
    timing.cpu.append(time.process_time() - cpu)
