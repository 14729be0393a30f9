"""Runs one masked stream: every distinct mask of an image once, and what is kept of the scores."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.context import Context
from voxplain.engine.execution.masked_cones import ConeScores
from voxplain.engine.execution.masked_windows import WindowedScores
from voxplain.engine.execution.runner import Runner, StreamOutput
from voxplain.engine.execution.trial import SCORES_TRIED, of_scores, spread
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.memory import BatchBudget, ForwardBudget, in_batches
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import Points
from voxplain.engine.requests import MaskRequest, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.models.model import Offload


class MaskedRunner(Runner):
    """One masked stream of one network, without any gradient.

    Args:
        stream: What to run.
        passes: How masked images are scored.
        budget: How many images at once.
        tick: Called with the number of forwards after each batch.
        scores: S of the images of the batch, where the stream runs on the images themselves.
        context: The network and the images.
    """

    def __init__(
        self,
        stream: Stream[MaskRequest],
        passes: Passes,
        budget: BatchBudget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None,
        context: Context,
    ) -> None:
        self.stream, self.passes, self.budget = stream, passes, budget
        self.scores, self.context = scores, context
        self.forwards = self._waiting = 0
        self._report = tick

    trial_passes = SCORES_TRIED + 1

    def trial(self, item: StreamInput) -> list[Tensor]:
        """Scores under a few masks, and what follows from them for a map."""
        masks = self.stream.request.masks.masks(item, self.context)
        painter = self.stream.request.fill.painters(item, masks)[0]
        network = _MaskedInput(self, masks, item)
        tried = spread([n for n, key in enumerate(painter.identities()) if key is not None])
        scores = network.in_windows(painter, tried)
        if scores is None:
            network.follows_cones(painter.image, len(masks))
            scores = _in_batches([network], painter, tried, None)[0]
        return of_scores(network.score, scores)

    @classmethod
    def batch_budget(
        cls,
        device: torch.device,
        limit: int | None,
        image: Tensor,  # noqa: ARG003
        offload: Offload,  # noqa: ARG003
    ) -> BatchBudget:
        """By the largest activation of the first forward."""
        return ForwardBudget(device, limit)

    @classmethod
    def run(
        cls,
        runners: Sequence[MaskedRunner],
        inputs: Sequence[StreamInput],
        prefix: SharedPrefix | None = None,
    ) -> list[list[StreamOutput]]:
        """What the reducers make of each input, per network."""
        outputs = [_one_input(runners, item, prefix) for item in inputs]
        return [list(of_network) for of_network in zip(*outputs, strict=True)]

    def finish(self, images: int) -> None:
        """Passes are those that were run, since equal masks run once."""
        self.passes.log.spent = math.ceil(self.forwards / images)

    def begin(self, item: StreamInput) -> None:
        """Starts an image; progress advances by its planned number of forwards."""
        references = 0 if item.references is None else len(item.references)
        self._waiting = self.stream.passes(references) // self.stream.copies

    def tick(self, forwards: int) -> None:
        """Counts masked images, or masked volumes where the network sees windows."""
        self.forwards += forwards
        self._advance(min(forwards, self._waiting))

    def end(self) -> None:
        """Ends an image: what was planned and not needed counts as done."""
        self._advance(self._waiting)

    def score(self, item: StreamInput) -> float:
        """S of an input without mask."""
        if self.scores is not None:
            return self.scores[item.row]
        return float(self.passes.scores(Points(item.image[None], [item.row]))[0])

    def output(
        self, masks: Masks, painters: Sequence[Painter], scores: Tensor, score: float
    ) -> StreamOutput:
        """What the reducers make of the scores under all masks, ``(n,)``."""
        reductions = {
            slot: slot.request.reducer.bound_to(masks, painters).reduce(masks, scores, score)
            for slot in self.stream.slots
        }
        empty = next((each.empty for each in reductions.values() if each.empty is not None), None)
        return StreamOutput(
            tensors={slot: reduction.map for slot, reduction in reductions.items()},
            difference=None if empty is None else score - empty,
            start_score=empty,
            totals={s: each.total for s, each in reductions.items() if each.total is not None},
            findings={slot: dict(each.findings) for slot, each in reductions.items()},
        )

    def _advance(self, forwards: int) -> None:
        self._waiting -= forwards
        if forwards:
            self._report(forwards)


def _one_input(
    runners: Sequence[MaskedRunner], item: StreamInput, prefix: SharedPrefix | None
) -> list[StreamOutput]:
    request = runners[0].stream.request
    masks = request.masks.masks(item, runners[0].context)
    if len(runners) > 1 and masks.at_layer:  # they replace activations of each network's own
        return [_one_input([runner], item, None)[0] for runner in runners]
    painters = request.fill.painters(item, masks)
    for runner in runners:
        runner.begin(item)
        if masks.remark:
            runner.passes.log.remarks[masks.remark] = None
    networks = [_MaskedInput(runner, masks, item) for runner in runners]
    scores = torch.zeros(len(runners), len(masks), dtype=torch.float64)
    for painter in painters:
        scores += _under_all(networks, painter, prefix)
    scores /= len(painters)
    for runner in runners:
        runner.end()
    return [
        network.runner.output(masks, painters, row, network.score)
        for network, row in zip(networks, scores, strict=True)
    ]


class _MaskedInput:
    """One network and one input under masks.

    Args:
        runner: The stream and the network.
        masks: All masks.
        item: The input.
    """

    def __init__(self, runner: MaskedRunner, masks: Masks, item: StreamInput) -> None:
        self.runner, self.masks, self.row = runner, masks, item.row
        self.score = runner.score(item)
        self._cones: ConeScores | None = None

    def follows_cones(self, image: Tensor, count: int) -> bool:
        """Whether only what a mask changes is computed, for so many masks."""
        choice, passes = self.runner.stream.request.incremental, self.runner.passes
        self._cones = ConeScores.where_it_pays(choice, passes, self.masks, image, self.row, count)
        return self._cones is not None

    def in_windows(self, painter: Painter, todo: Sequence[int]) -> list[float] | None:
        """S under some masks where only windows that a mask touches run again; None elsewhere."""
        layout = self.runner.context.layout
        if layout is None or self.masks.at_layer:
            return None
        windowed = WindowedScores(self.runner.passes, layout, painter.image, self.row, self.score)
        return windowed.scores(self.masks, painter, todo, self.runner.tick)

    def scores(self, images: Tensor, indices: list[int]) -> list[float]:
        """S of masked images ``(k, C, *spatial)``."""
        if self._cones is not None:
            return self._cones.scores(images, self.masks, indices).tolist()
        points = Points(images, [self.row] * len(indices))
        return self.runner.passes.scores(points, self.masks.changes(indices)).tolist()


def _under_all(
    networks: Sequence[_MaskedInput], painter: Painter, prefix: SharedPrefix | None
) -> Tensor:
    """S under every mask ``(networks, masks)``; equal masks run once, the image not again."""
    keys = painter.identities()
    first: dict[object, int] = {}
    for index, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, index)
    rows = []
    scores = _under(networks, painter, list(first.values()), prefix)
    for network, of_network in zip(networks, scores, strict=True):
        by_key: dict[object, float] = dict(zip(first, of_network, strict=True))
        by_key[None] = network.score
        rows.append([by_key[key] for key in keys])
    return torch.tensor(rows, dtype=torch.float64)


def _under(
    networks: Sequence[_MaskedInput], painter: Painter, todo: list[int], prefix: SharedPrefix | None
) -> list[list[float]]:
    """Scores under the given masks, one list per network.

    Networks that can run single windows or cones again are run separately.
    """
    windowed = [network.in_windows(painter, todo) for network in networks]
    scores = [of_network for of_network in windowed if of_network is not None]
    if len(scores) == len(networks):
        return scores
    cones = networks[0].follows_cones(painter.image, len(todo))
    if cones and len(networks) > 1:
        return [_under([network], painter, todo, None)[0] for network in networks]
    return _in_batches(networks, painter, todo, prefix)


def _in_batches(
    networks: Sequence[_MaskedInput], painter: Painter, todo: list[int], prefix: SharedPrefix | None
) -> list[list[float]]:
    scores: list[list[float]] = [[] for _ in networks]

    def run(places: range) -> None:
        indices = todo[places.start : places.stop]
        batch = _batch(networks, painter.painted(indices), indices, prefix)
        for network, known, new in zip(networks, scores, batch, strict=True):
            known += new
            network.runner.tick(len(indices))

    in_batches(len(todo), networks[0].runner.budget, run)
    return scores


def _batch(
    networks: Sequence[_MaskedInput],
    images: Tensor,
    indices: list[int],
    prefix: SharedPrefix | None,
) -> list[list[float]]:
    scores = []
    with prefix.batch() if prefix else contextlib.nullcontext():
        for network in networks:
            with network.runner.budget.measured(len(indices)):
                scores.append(network.scores(images, indices))
    return scores
