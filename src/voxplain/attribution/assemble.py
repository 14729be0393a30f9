"""From tensors to attributions: grids, completeness, and everything a sidecar says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.result import Attribution, Stats
from voxplain.engine.baselines import baseline_image
from voxplain.engine.binding import BoundTarget
from voxplain.engine.context import Assembly, Context
from voxplain.engine.execution.outcome import Outcome
from voxplain.engine.execution.session import Session
from voxplain.engine.method import Method
from voxplain.image import Grid, Image
from voxplain.records.sidecar import LayerFacts, ModelFacts, TargetFacts
from voxplain.targets.base import probability_of


def attributions_of(
    session: Session, main: BoundTarget, image: Image | None
) -> dict[str, Attribution]:
    """Runs a session and wraps what it brings.

    Args:
        session: Declared and bound.
        main: The target of the call on the batch.
        image: The image, where the batch is one image on its grid.
    """
    outcomes = session.run()
    found = {}
    facts = session.context.model.facts  # hashes all weights
    for method in session.methods:
        outcome = outcomes[method.key]
        wrapping = _MapAssembler(session, main, image, method, outcome, facts)
        for layer, maps in outcome.maps.items():
            several = len(outcome.maps) > 1
            key = f"{method.key}@{layer}" if several else method.key
            found[key] = wrapping.wrap(layer, maps)
    return found


class _MapAssembler:
    """One method of one session, ready to be wrapped."""

    def __init__(
        self,
        session: Session,
        main: BoundTarget,
        image: Image | None,
        method: Method,
        outcome: Outcome,
        model: ModelFacts,
    ) -> None:
        self.session, self.image, self.method, self.outcome = session, image, method, outcome
        self.model = model
        streams = [record.stream for record in outcome.streams]
        own = [stream.request.target for stream in streams if stream.request.target is not None]
        self.bound = session.bound_of(own[0]) if own else main

    def wrap(self, layer: str | None, maps: Tensor) -> Attribution:
        """The attribution of one map, on the source grid or on the grid of its layer."""
        stats = self._stats(layer, maps)
        finished = torch.stack([self.method.finish(map) for map in maps])
        context, image = self.session.context, self.image
        facts, seen = None, None if layer else finished
        if layer is not None:
            facts, finished, grid = self._on_layer(layer, finished)
        elif image is not None:
            finished = image.restore(finished[0], self.method.resampling)[None]
            grid = image.source_grid
        else:
            grid = Grid.default(context.shape) if len(context.shape) in (2, 3) else None
        channels = self._channels(finished.shape[1], layer)
        return Attribution(
            map=(finished[0] if image is not None else finished).to(self.session.home),
            grid=grid,
            method=self.method,
            target=self._target_facts(),
            model=self.model,
            stats=stats,
            label=self.method.key,
            channels=channels,
            layer=facts,
            inverted=tuple(step.name for step in image.history) if image and not layer else (),
            baseline=self._baseline(),
            batched=image is None,
            on_input=seen if image is None or seen is None else seen[0],
        )

    def _on_layer(self, layer: str, maps: Tensor) -> tuple[LayerFacts, Tensor, Grid | None]:
        context = self.session.context
        tap = next(
            place
            for record in self.outcome.streams
            for place in record.stream.places
            if place.path == layer
        )
        geometry = context.geometry(tap)
        grid = self._input_grid(context)
        if context.layout is not None:
            windows: Assembly = getattr(self.method, "windows", "sum")
            maps = torch.stack([context.on_image(tap, map, windows) for map in maps])
        elif grid is not None and maps.ndim == 2 + grid.rank:
            grid = grid.sub(geometry.start, geometry.stride, tuple(maps.shape[2:]))
        facts = LayerFacts(
            path=layer,
            channels=maps.shape[1],
            shape=tuple(maps.shape[2:]),
            stride=geometry.stride,
            start=geometry.start,
            call=tap.call if tap.call >= 0 else None,
        )
        return facts, maps, grid

    def _input_grid(self, context: Context) -> Grid | None:
        if self.image is not None:
            return self.image.grid
        return Grid.default(context.shape) if len(context.shape) in (2, 3) else None

    def _shares(self, maps: Tensor) -> tuple[float, ...] | None:
        """What each map shares out, before any post-step, as a share of S(x) - S(b)."""
        if self.outcome.differences is None:
            return None
        sums = self.outcome.totals or maps.flatten(1).double().sum(dim=1).tolist()
        pairs = zip(sums, self.outcome.differences, strict=True)
        return tuple(total / (wanted or 1e-12) for total, wanted in pairs)

    def _channels(self, count: int, layer: str | None) -> tuple[str, ...]:
        if count == len(self.method.map_channels):
            return self.method.map_channels
        if layer is None and self.image is not None and count == len(self.image.channels):
            return self.image.channels
        if count == 1:
            return ("all channels",)
        return tuple(f"channel {index}" for index in range(count))

    def _stats(self, layer: str | None, maps: Tensor) -> Stats:
        shares = self._shares(maps)
        records = self.outcome.streams
        shared = {key for record in records for key in record.stream.methods}
        remarks = [remark for record in records for remark in record.remarks]
        remarks += list(self.bound.field.remarks)
        weights = getattr(self.method, "weights", None)
        if self.session.context.layout and weights and not weights.exact_in_windows:
            remarks.append(
                "over overlapping windows this map is near that of the whole, not equal to it"
            )
        if not torch.isfinite(maps).all():
            remarks.append("the map holds NaN or infinite values: it is not to be used")
        elif not maps.any():
            remarks.append("the map is zero everywhere: the score does not react to the image here")
        starts = self.outcome.start_scores
        return Stats(
            scores=self.bound.scores,
            baseline_scores=tuple(starts) if starts else None,
            completeness=tuple(abs(share - 1) for share in shares)
            if shares and not layer
            else None,
            flow=shares if layer else None,
            passes=sum(self.session.spent(record) for record in records),
            seconds=sum(record.seconds for record in records),
            shared_with=tuple(sorted(shared - {self.method.key})),
            streams=tuple(record.facts for record in records),
            findings=tuple(self.outcome.findings or ()),
            warnings=tuple(dict.fromkeys(remarks)),
        )

    def _target_facts(self) -> tuple[TargetFacts, ...]:
        bound = self.bound
        parameters = bound.target.model_dump(mode="python", exclude={"kind"})
        return tuple(
            TargetFacts(
                kind=bound.target.kind,
                in_words=words,
                parameters={key: _shown(value) for key, value in parameters.items()},
                score=bound.scores[row],
                baseline_score=_at(self.outcome.start_scores, row),
                probability=_probability(bound, row),
                field_size=bound.field.size(row),
            )
            for row, words in enumerate(bound.field.in_words)
        )

    def _baseline(self) -> dict[str, Any] | None:
        baseline = self.method.baseline_of
        if baseline is None:
            return None
        name = "tensor" if isinstance(baseline, Tensor) else baseline
        image = self.session.batch.images[0]
        levels = baseline_image(baseline, image).reshape(len(image), -1).mean(dim=1).tolist()
        facts: dict[str, Any] = {"name": name, "model_intensity": levels}
        if self.image is not None:
            facts["source_intensity"] = [
                self.image.source_intensity(level)[index] for index, level in enumerate(levels)
            ]
        return facts


def _at(values: list[float] | None, row: int) -> float | None:
    return None if values is None else values[row]


def _probability(bound: BoundTarget, row: int) -> float | None:
    """Of the class, for classifiers."""
    label, seen = bound.field.label_of(row), bound.seen
    if seen.is_dense or label is None or bound.field.layer is not None:
        return None
    return float(probability_of(seen.output, label, bound.target.activation)[row])


def _shown(value: Any) -> Any:
    """A parameter without arrays and without paths."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value if not isinstance(value, str) or "/" not in value else "file"
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(part) for part in value]
    shape = getattr(value, "shape", None)
    return {"array": list(shape)} if shape is not None else "file"
