"""Runs one masked stream: every distinct mask of an image once, and what is kept of the scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.context import Context
from voxplain.engine.execution.accumulators import StreamOutput
from voxplain.engine.execution.masked_cones import ConeScores
from voxplain.engine.execution.masked_windows import WindowedScores
from voxplain.engine.item import StreamInput
from voxplain.engine.masks.layer_channels import LayerChannels
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.memory import ForwardBudget, ran_out_of_memory
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.windowed import WindowedPasses
from voxplain.errors import VoxplainError

if TYPE_CHECKING:
    from voxplain.engine.streams import MaskedStream


class MaskedRunner:
    """One masked stream of one network, for batches of items, without any gradient.

    Args:
        stream: What to run.
        passes: How masked images are scored.
        context: The network and what is known of it.
        budget: How many images at once.
        tick: Called with the number of forwards after each batch.
        scores: S of the images of the batch, where the stream runs on the images themselves.
    """

    def __init__(
        self,
        stream: MaskedStream,
        passes: Passes,
        context: Context,
        budget: ForwardBudget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None = None,
    ) -> None:
        self.stream, self.passes, self.context = stream, passes, context
        self.budget, self.scores = budget, scores
        self.forwards = self._planned = 0
        self._told = tick

    def begin(self, item: StreamInput) -> None:
        """An image counts for what was planned for it, however many masks turn out to be equal."""
        references = 0 if item.references is None else len(item.references)
        self._planned = self.stream.passes_with(references) // self.stream.copies

    def tick(self, forwards: int) -> None:
        """Counts masked images, or masked volumes where the network sees windows."""
        self.forwards += forwards
        self._tell(min(forwards, self._planned))

    def end(self) -> None:
        """The image is done."""
        self._tell(self._planned)

    def whole(self, item: StreamInput) -> float:
        """S of an item without mask."""
        if self.scores is not None:
            return self.scores[item.row]
        return float(self.passes.scores(item.image[None], [item.row])[0])

    def reduced(
        self, masks: Masks, painters: Sequence[Painter], scores: Tensor, whole: float
    ) -> StreamOutput:
        """What the reducers make of the scores under all masks, ``(n,)``."""
        found = {
            slot: slot.reducer.facing(masks, painters).reduce(masks, scores, whole)
            for slot in self.stream.slots
        }
        empty = next((part.empty for part in found.values() if part.empty is not None), None)
        return StreamOutput(
            tensors={slot: part.map for slot, part in found.items()},
            difference=None if empty is None else whole - empty,
            start_score=empty,
            totals={s: part.total for s, part in found.items() if part.total is not None},
            findings={slot: dict(part.findings) for slot, part in found.items()},
        )

    def _tell(self, forwards: int) -> None:
        self._planned -= forwards
        if forwards:
            self._told(forwards)


def masked(
    runners: Sequence[MaskedRunner],
    items: Sequence[StreamInput],
    prefix: SharedPrefix | None = None,
) -> list[list[StreamOutput]]:
    """What the reducers make of each item, for one network or several side by side.

    Args:
        runners: The same stream, one runner per network.
        items: The images.
        prefix: What the networks share.
    """
    found = [_one(runners, item, prefix) for item in items]
    return [list(of_network) for of_network in zip(*found, strict=True)]


def _one(
    runners: Sequence[MaskedRunner], item: StreamInput, prefix: SharedPrefix | None
) -> list[StreamOutput]:
    request = runners[0].stream.request
    masks = request.masks.masks(item, runners[0].context)
    if len(runners) > 1 and isinstance(masks, LayerChannels):  # what they put in is the network's
        return [_one([runner], item, None)[0] for runner in runners]
    painters = request.fill.painters(item, masks)
    for runner in runners:
        runner.begin(item)
    subjects = [_MaskedInput(runner, masks, item) for runner in runners]
    scores = torch.zeros(len(runners), len(masks), dtype=torch.float64)
    for painter in painters:
        scores += _under_each(subjects, painter, prefix)
    scores /= len(painters)
    for runner in runners:
        runner.end()
    return [
        subject.runner.reduced(masks, painters, row, subject.whole)
        for subject, row in zip(subjects, scores, strict=True)
    ]


class _MaskedInput:
    """One network and one image under masks.

    Args:
        runner: The stream and the network.
        masks: All masks.
        item: The image.
    """

    def __init__(self, runner: MaskedRunner, masks: Masks, item: StreamInput) -> None:
        self.runner, self.masks, self.row = runner, masks, item.row
        self.whole = runner.whole(item)
        self._cones: ConeScores | None = None

    def follows_cones(self, image: Tensor, count: int) -> bool:
        """Whether only what a mask changes is computed, for so many masks."""
        choice = self.runner.stream.request.incremental
        asked = (choice, self.runner.passes, self.masks, image, self.row, count)
        self._cones = ConeScores.where_it_pays(*asked)
        return self._cones is not None

    def in_windows(self, painter: Painter, todo: Sequence[int]) -> list[float] | None:
        """S under some masks where only windows that a mask touches run again; None elsewhere."""
        passes, layout = self.runner.passes, self.runner.context.layout
        if layout is None or not isinstance(passes, WindowedPasses):
            return None
        if isinstance(self.masks, LayerChannels):
            return None
        windowed = WindowedScores(passes, layout, painter.image, self.row, self.whole)
        return windowed.scores(self.masks, painter, todo, self.runner.tick)

    def scores(self, shown: Tensor, part: list[int]) -> list[float]:
        """S of masked images ``(k, C, *spatial)``."""
        if self._cones is not None:
            return self._cones.scores(shown, self.masks, part).tolist()
        changes = self.masks.changes(part) if isinstance(self.masks, LayerChannels) else None
        return self.runner.passes.scores(shown, [self.row] * len(part), changes).tolist()


def _under_each(
    subjects: Sequence[_MaskedInput], painter: Painter, prefix: SharedPrefix | None
) -> Tensor:
    """S under every mask ``(networks, masks)``; equal masks run once, the image not again."""
    keys = painter.identities()
    first: dict[object, int] = {}
    for index, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, index)
    rows = []
    found = _evaluated(subjects, painter, list(first.values()), prefix)
    for subject, scores in zip(subjects, found, strict=True):
        known: dict[object, float] = {None: subject.whole, **dict(zip(first, scores, strict=True))}
        rows.append([known[key] for key in keys])
    return torch.tensor(rows, dtype=torch.float64)


def _evaluated(
    subjects: Sequence[_MaskedInput], painter: Painter, todo: list[int], prefix: SharedPrefix | None
) -> list[list[float]]:
    """S under the masks of ``todo`` per network; whoever can spare work of its own goes alone."""
    windowed = [subject.in_windows(painter, todo) for subject in subjects]
    known = [scores for scores in windowed if scores is not None]
    if len(known) == len(subjects):
        return known
    cones = subjects[0].follows_cones(painter.image, len(todo))
    if cones and len(subjects) > 1:
        return [_evaluated([subject], painter, todo, None)[0] for subject in subjects]
    return _in_batches(subjects, painter, todo, prefix)


def _in_batches(
    subjects: Sequence[_MaskedInput], painter: Painter, todo: list[int], prefix: SharedPrefix | None
) -> list[list[float]]:
    scores: list[list[float]] = [[] for _ in subjects]
    budget, alone = subjects[0].runner.budget, subjects[0].runner.context.layout is not None
    done = 0
    while done < len(todo):
        part = todo[done : done + (1 if alone else budget.size)]
        try:
            found = _batch(subjects, painter.painted(part), part, prefix)
        except RuntimeError as error:
            if isinstance(error, VoxplainError) or not ran_out_of_memory(error):
                raise
            if not budget.halve():
                raise
            continue
        done += len(part)
        for subject, known, new in zip(subjects, scores, found, strict=True):
            known += new
            subject.runner.tick(len(part))
    return scores


def _batch(
    subjects: Sequence[_MaskedInput], shown: Tensor, part: list[int], prefix: SharedPrefix | None
) -> list[list[float]]:
    found = []
    with prefix.batch() if prefix else contextlib.nullcontext():
        for subject in subjects:
            with subject.runner.budget.measured(len(part)):
                found.append(subject.scores(shown, part))
    return found
