"""Runs one masked stream: every distinct mask of an image once, and what is kept of the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxplain.attribution.budget import ran_out_of_memory
from voxplain.attribution.masking.budget import ForwardBudget
from voxplain.attribution.masking.cones import ConeScores
from voxplain.attribution.masking.layers import LayerChannels
from voxplain.attribution.masking.masks import Masks, Painter
from voxplain.attribution.masking.windows import WindowedScores
from voxplain.attribution.passes import Passes
from voxplain.attribution.runner import Reduced
from voxplain.attribution.samplers import Item
from voxplain.attribution.scene import Scene
from voxplain.attribution.windowed import WindowedPasses
from voxplain.errors import VoxplainError

if TYPE_CHECKING:
    from voxplain.attribution.streams import MaskedStream


class MaskedRunner:
    """Runs one masked stream for batches of items, without any gradient.

    Args:
        stream: What to run.
        passes: How masked images are scored.
        scene: The network and what is known of it.
        budget: How many images at once.
        tick: Called with the number of forwards after each batch.
        scores: S of the images of the batch, where the stream runs on the images themselves.
    """

    def __init__(
        self,
        stream: MaskedStream,
        passes: Passes,
        scene: Scene,
        budget: ForwardBudget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None = None,
    ) -> None:
        self.stream, self.passes, self.scene = stream, passes, scene
        self.budget, self.whole = budget, scores
        self.forwards = self._planned = 0
        self._told = tick

    def run(self, items: Sequence[Item]) -> list[Reduced]:
        """What the reducers make of each item, in order."""
        return [self._one(item) for item in items]

    def tick(self, forwards: int) -> None:
        """Counts masked images, or masked volumes where the network sees windows."""
        self.forwards += forwards
        self._tell(min(forwards, self._planned))

    def _tell(self, forwards: int) -> None:
        """An image counts for what was planned for it, however many masks turn out to be equal."""
        self._planned -= forwards
        if forwards:
            self._told(forwards)

    def _one(self, item: Item) -> Reduced:
        references = 0 if item.references is None else len(item.references)
        self._planned = self.stream.passes_with(references) // self.stream.copies
        reduced = self._reduced(item)
        self._tell(self._planned)
        return reduced

    def _reduced(self, item: Item) -> Reduced:
        request = self.stream.request
        masks = request.masks.masks(item, self.scene)
        whole = self._whole(item)
        painters = request.fill.painters(item, masks)
        scores = torch.zeros(len(masks), dtype=torch.float64)
        for painter in painters:
            scores += self._scores(masks, painter, item.row, whole)
        scores /= len(painters)
        found = {
            slot: slot.reducer.facing(masks, painters).reduce(masks, scores, whole)
            for slot in self.stream.slots
        }
        empty = next((part.empty for part in found.values() if part.empty is not None), None)
        return Reduced(
            tensors={slot: part.map for slot, part in found.items()},
            difference=None if empty is None else whole - empty,
            start_score=empty,
            totals={s: part.total for s, part in found.items() if part.total is not None},
            findings={slot: dict(part.findings) for slot, part in found.items()},
        )

    def _whole(self, item: Item) -> float:
        if self.whole is not None:
            return self.whole[item.row]
        return float(self.passes.scores(item.image[None], [item.row])[0])

    def _scores(self, masks: Masks, painter: Painter, row: int, whole: float) -> Tensor:
        """S under every mask; masks that give the same image are run once, the image not again."""
        keys = painter.identities()
        first: dict[object, int] = {}
        for index, key in enumerate(keys):
            if key is not None:
                first.setdefault(key, index)
        found = self._evaluated(masks, painter, list(first.values()), row, whole)
        known: dict[object, float] = {None: whole, **dict(zip(first, found, strict=True))}
        return torch.tensor([known[key] for key in keys], dtype=torch.float64)

    def _evaluated(
        self, masks: Masks, painter: Painter, todo: list[int], row: int, whole: float
    ) -> list[float]:
        if self.scene.layout is not None and isinstance(self.passes, WindowedPasses):
            if isinstance(masks, LayerChannels):
                return self._in_batches(masks, painter, todo, row, size=1)
            windowed = WindowedScores(self.passes, self.scene.layout, painter.image, row, whole)
            return windowed.scores(masks, painter, todo, self.tick)
        return self._in_batches(masks, painter, todo, row)

    def _in_batches(
        self, masks: Masks, painter: Painter, todo: list[int], row: int, size: int | None = None
    ) -> list[float]:
        choice = self.stream.request.incremental
        asked = (choice, self.passes, masks, painter.image, row, len(todo))
        cones = ConeScores.where_it_pays(*asked)
        scores: list[float] = []
        while len(scores) < len(todo):
            part = todo[len(scores) : len(scores) + (size or self.budget.size)]
            try:
                with self.budget.measured(len(part)):
                    scores += self._batch(masks, painter.painted(part), part, row, cones).tolist()
            except RuntimeError as error:
                if isinstance(error, VoxplainError) or not ran_out_of_memory(error):
                    raise
                if not self.budget.halve():
                    raise
                continue
            self.tick(len(part))
        return scores

    def _batch(
        self, masks: Masks, shown: Tensor, part: list[int], row: int, cones: ConeScores | None
    ) -> Tensor:
        if cones is not None:
            return cones.scores(shown, masks, part)
        changes = masks.changes(part) if isinstance(masks, LayerChannels) else None
        return self.passes.scores(shown, [row] * len(part), changes)
