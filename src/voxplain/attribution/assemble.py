"""From tensors to attributions: grids, completeness, and everything a sidecar says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.result import Attribution, Stats
from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import BoundTarget, Context
from voxplain.engine.execution.networks import run_networks
from voxplain.engine.execution.session import Session
from voxplain.engine.network_layers import Assembly
from voxplain.engine.stream_io import MethodOutput
from voxplain.image import Grid
from voxplain.records.sidecar import LayerFacts, ModelFacts, TargetFacts
from voxplain.targets.base import probability_of


def attributions_of(session: Session) -> dict[str, Attribution]:
    """Runs a session and assembles its maps."""
    (outputs,) = run_networks([session])
    attributions = {}
    facts = session.context.model.facts  # hashes all weights
    for key in session.methods:
        of_method = outputs.get(key)
        if not of_method:
            continue
        assembler = _MapAssembler(session, key, of_method, facts)
        for layer in assembler.layers:
            name = f"{key}@{layer}" if len(assembler.layers) > 1 else key
            attributions[name] = assembler.wrap(layer)
    return attributions


class _MapAssembler:
    """One method of one session, ready to be wrapped."""

    def __init__(
        self,
        session: Session,
        key: str,
        outputs: list[MethodOutput],
        model: ModelFacts,
    ) -> None:
        self.session, self.key, self.outputs = session, key, outputs
        self.method = session.methods[key]
        self.model, self.image = model, session.context.image
        self.layers = tuple(outputs[0].maps)
        self.streams = [stream for stream in session.streams if key in stream.methods]
        own = [stream for stream in self.streams if stream.request.target is not None]
        self.bound = session.bound[(own or self.streams)[0]]

    def wrap(self, layer: str | None) -> Attribution:
        """The attribution of one map, on the source grid or on the grid of its layer."""
        maps = torch.stack([output.maps[layer] for output in self.outputs])
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
            map=(finished[0] if image is not None else finished).to(context.home),
            grid=grid,
            method=self.method,
            target=self._target_facts(),
            model=self.model,
            stats=stats,
            label=self.key,
            channels=channels,
            layer=facts,
            inverted=tuple(step.name for step in image.history) if image and not layer else (),
            baseline=self._baseline(),
            batched=image is None,
            on_input=seen if image is None or seen is None else seen[0],
        )

    def _on_layer(self, layer: str, maps: Tensor) -> tuple[LayerFacts, Tensor, Grid | None]:
        context = self.session.context
        tap = next(place for stream in self.streams for place in stream.taps if place.path == layer)
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
        differences = self._known([output.difference for output in self.outputs])
        if differences is None:
            return None
        totals = self._known([output.total for output in self.outputs])
        sums = totals or maps.flatten(1).double().sum(dim=1).tolist()
        pairs = zip(sums, differences, strict=True)
        return tuple(total / (wanted or 1e-12) for total, wanted in pairs)

    @staticmethod
    def _known(values: list[float | None]) -> tuple[float, ...] | None:
        """A value per image, or None where there is none."""
        known = tuple(value for value in values if value is not None)
        return known or None

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
        logs = [self.session.logs[stream] for stream in self.streams]
        shared = {key for stream in self.streams for key in stream.methods}
        remarks = [remark for log in logs for remark in log.remarks]
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
        findings = tuple(output.findings for output in self.outputs)
        return Stats(
            scores=self.bound.scores,
            baseline_scores=self._known([each.start_score for each in self.outputs]),
            completeness=tuple(abs(share - 1) for share in shares)
            if shares and not layer
            else None,
            flow=shares if layer else None,
            passes=sum(log.spent for log in logs),
            seconds=sum(log.seconds for log in logs),
            shared_with=tuple(sorted(shared - {self.key})),
            streams=tuple(
                stream.facts(log) for stream, log in zip(self.streams, logs, strict=True)
            ),
            findings=findings if any(findings) else (),
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
                baseline_score=self.outputs[row].start_score,
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
