"""Scores of a volume under masks, where only the windows are computed again that a mask touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks, Painter, Position, Region, inside
from voxplain.engine.passes.base import Passes
from voxplain.models.layout import Layout
from voxplain.models.windowed_output import dense
from voxplain.targets import WeightField

_KEPT = 2 * 2**30
"""Bytes of window outputs that are kept; beyond it unmasked windows run beside masked ones."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """One masked window that waits for its batch."""

    mask: int
    position: Position
    window: Tensor


class WindowedScores:
    """S of one volume under masks, exact.

    Where S is linear in the output, every window has a share of S of its own, and a mask changes
    the shares of the windows it touches. Where a link stands between, the blended output is
    changed where those windows lie.

    Args:
        passes: How windows are evaluated.
        layout: The windows.
        image: The volume without mask, ``(C, *spatial)``.
        row: Its index in the batch.
        whole: Its score.
    """

    def __init__(
        self, passes: Passes, layout: Layout, image: Tensor, row: int, whole: float
    ) -> None:
        self.passes, self.layout, self.whole = passes, layout, whole
        self.outputs = layout.outputs
        self.field = passes.bound.rows([row])
        self.batch = passes.model.windows_at_once
        self._clean: dict[Position, Tensor] = {}
        self._padded = layout.pad(image)

    def scores(
        self, masks: Masks, painter: Painter, todo: Sequence[int], tick: Callable[[int], None]
    ) -> list[float]:
        """S under each of the masks in ``todo``."""
        if self.field.is_linear and self.passes.rebind is None:
            return self._from_shares(masks, painter, todo, tick)
        return self._from_outputs(masks, painter, todo, tick)

    def _from_shares(
        self, masks: Masks, painter: Painter, todo: Sequence[int], tick: Callable[[int], None]
    ) -> list[float]:
        cotangent = self._cotangent()
        positions = self.layout.positions
        clean = [_Pending(0, position, self._cut(self._padded, position)) for position in positions]
        shares = dict(zip(positions, self._shares(clean, cotangent), strict=True))
        scores = [self.whole] * len(todo)
        waiting: list[_Pending] = []
        for number, index in enumerate(todo):
            volume = self.layout.pad(painter.painted([index])[0])
            for position in masks.touched(index, self.layout):
                if bool(cotangent[self.outputs.region(position)].any()):
                    waiting.append(_Pending(number, position, self._cut(volume, position).clone()))
            if len(waiting) >= self.batch or number == len(todo) - 1:
                for pending, share in zip(waiting, self._shares(waiting, cotangent), strict=True):
                    scores[pending.mask] += share - shares[pending.position]
                waiting = []
            tick(1)
        return scores

    def _shares(self, pending: Sequence[_Pending], cotangent: Tensor) -> list[float]:
        """What each window adds to S."""
        found: list[float] = []
        for first in range(0, len(pending), self.batch):
            part = pending[first : first + self.batch]
            positions = [one.position for one in part]
            weights = self.outputs.cut(cotangent, positions)
            weights = weights * self.outputs.blend_weights(positions, weights)
            output = self._dense(torch.stack([one.window for one in part]))
            found += (output * weights).flatten(1).sum(dim=1, dtype=torch.float64).tolist()
        return found

    def _cotangent(self) -> Tensor:
        """Weights on the output of the padded volume, ``(K, *outputs.grid)``."""
        first, *others = (term.weights[0] for term in self.field.terms)
        return self.layout.embed(sum(others, first))

    def _from_outputs(
        self, masks: Masks, painter: Painter, todo: Sequence[int], tick: Callable[[int], None]
    ) -> list[float]:
        blended = self._blended()
        scores = []
        for index in todo:
            volume = self.layout.pad(painter.painted([index])[0])
            touched = tuple(masks.touched(index, self.layout))
            scores.append(self._score(blended, volume, touched) if touched else self.whole)
            tick(1)
        return scores

    def _blended(self) -> Tensor:
        """The blended output of the padded image, ``(K, *outputs.grid)``."""
        blended: Tensor | None = None
        for positions in self.layout.batches(self.batch):
            for position, part in zip(positions, self._parts(self._padded, positions), strict=True):
                if blended is None:
                    blended = part.new_zeros(len(part), *self.outputs.grid)
                blended[self.outputs.region(position)] += part
                if len(self.layout) * part.nbytes <= _KEPT:
                    self._clean[position] = part
        if blended is None:
            raise ValueError("a layout has at least one window")
        return blended

    def _score(self, blended: Tensor, volume: Tensor, touched: tuple[Position, ...]) -> float:
        """S after the touched windows have changed their part of the output."""
        around = self._around(touched)
        patch = blended[inside(around)].clone()
        for first in range(0, len(touched), self.batch):
            positions = touched[first : first + self.batch]
            for position, part in zip(positions, self._parts(volume, positions), strict=True):
                patch[self._inside(position, around)] += part - self._unmasked(position)
        if self.passes.rebind is not None:
            changed = blended.clone()
            changed[inside(around)] = patch
            output = self.layout.crop(changed)[None]
            return float(self.passes.rebind(output).score(output)[0])
        field = self._cropped(around, blended)
        before = field.score(blended[inside(around)][None])
        return self.whole + float((field.score(patch[None]) - before)[0])

    def _parts(self, volume: Tensor, positions: Sequence[Position]) -> Tensor:
        """Outputs of windows times their blending weights."""
        output = self._dense(self.layout.cut(volume, positions))
        return output * self.outputs.blend_weights(positions, output)

    def _unmasked(self, position: Position) -> Tensor:
        known = self._clean.get(position)
        return self._parts(self._padded, (position,))[0] if known is None else known

    def _around(self, touched: Sequence[Position]) -> Region:
        """The box around the outputs of some windows."""
        boxes = [self.outputs.box(position) for position in touched]
        return tuple(
            slice(min(side.start for side in sides), max(side.stop for side in sides))
            for sides in zip(*boxes, strict=True)
        )

    def _inside(self, position: Position, around: Region) -> tuple[EllipsisType | slice, ...]:
        pairs = zip(self.outputs.box(position), around, strict=True)
        return inside(tuple(slice(a.start - b.start, a.stop - b.start) for a, b in pairs))

    def _cropped(self, around: Region, blended: Tensor) -> WeightField:
        """The weight field inside a box; what lies outside cancels in differences."""
        shape = (1, *self.layout.crop(blended).shape)
        terms = tuple(
            replace(term, weights=self.layout.embed(term.weights.expand(shape))[inside(around)])
            for term in self.field.terms
        )
        return replace(self.field, terms=terms)

    def _cut(self, volume: Tensor, position: Position) -> Tensor:
        return volume[self.layout.region(position)]

    def _dense(self, windows: Tensor) -> Tensor:
        self.passes.log.forwards += len(windows)
        with torch.inference_mode(), self.passes.model.precise():
            return dense(self.passes.model, windows)
