"""Attributions from the tensors of a session: grids, completeness, and the facts of a sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.methods.base import FromLayer, Wrapper
from voxplain.attribution.result import Attribution, Stats
from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import BoundTarget
from voxplain.engine.execution.networks import run_networks
from voxplain.engine.execution.session import Session
from voxplain.engine.method import Method
from voxplain.engine.passes.points import PassLog
from voxplain.engine.stream_io import MethodOutput
from voxplain.image import Grid
from voxplain.records.sidecar import LayerFacts, ModelFacts, TargetFacts
from voxplain.targets.base import probability_of
from voxplain.targets.field import Activation

_TINY = 1e-12  # stands for S(x) - S(b) where that is 0
_ROUNDING = 1e-6
"""Share of S(x) up to which a change of the score may be a rounding error."""
_ZERO_MAP = {
    False: "the map is zero everywhere, which need not mean that the score ignores the image",
    True: (
        "the map is zero everywhere: its rule or its ReLU left nothing, which need not mean that "
        "the score ignores the image"
    ),
}
"""By whether the values of the map are all positive."""


def assemble(session: Session) -> dict[str, Attribution]:
    """Runs a session, and returns its attributions.

    Returns:
        By the key of the method, or ``key@layer`` where a method has several layers.
    """
    (outputs,) = run_networks([session])
    attributions = {}
    model = session.context.model_facts
    for key in session.methods:
        if not outputs.get(key):
            continue
        assembler = _MapAssembler(session, key, outputs[key], model)
        for layer in assembler.layers:
            name = key if len(assembler.layers) == 1 else f"{key}@{layer}"
            attributions[name] = assembler.attribution(layer)
    return attributions


class _MapAssembler:
    """The maps of one method, and what their attributions have in common.

    Args:
        session: A session that has run.
        key: Of one of its methods.
        outputs: Of the method, per image.
        model: Facts about the network.
    """

    def __init__(
        self,
        session: Session,
        key: str,
        outputs: Sequence[MethodOutput],
        model: ModelFacts,
    ) -> None:
        self.session, self.context, self.image = session, session.context, session.context.image
        self.key, self.method = key, session.methods[key]
        self.properties = self.method.properties()
        self.outputs, self.layers, self.model = outputs, tuple(outputs[0].maps), model
        self.streams = [stream for stream in session.streams if key in stream.methods]
        own = [stream for stream in self.streams if stream.request.target is not None]
        self.bound = session.bound[(own or self.streams)[0]]

    def attribution(self, layer: str | None) -> Attribution:
        """The attribution of the maps of a layer; None for those on the image grid."""
        image = self.image
        maps = torch.stack([output.maps[layer] for output in self.outputs])
        finished = torch.stack([self.method.finish(values) for values in maps])
        placed, grid, facts = finished, self._input_grid(), None
        if layer is not None:
            placed, grid, facts = self._on_layer(layer, finished)
        elif image is not None:
            placed = image.restore(finished[0], self.properties.resampling)[None]
            grid = image.source_grid
        on_input = None if layer else finished
        return Attribution(
            map=(placed if image is None else placed[0]).to(self.context.home),
            grid=grid,
            method=self.method,
            target=self._target_facts(),
            model=self._model_facts(),
            layer_read=None if layer else self._layer_read(),
            stats=self._stats(layer, maps),
            label=self.key,
            channels=self._channel_names(placed.shape[1], layer),
            layer=facts,
            inverted=tuple(step.name for step in image.history) if image and not layer else (),
            baseline=self._baseline(),
            batched=image is None,
            on_input=on_input if image is None or on_input is None else on_input[0],
        )

    def _input_grid(self) -> Grid | None:
        if self.image is not None:
            return self.image.grid
        shape = self.context.shape
        return Grid.default(shape) if len(shape) in (2, 3) else None

    def _on_layer(self, layer: str, maps: Tensor) -> tuple[Tensor, Grid | None, LayerFacts]:
        """The maps of a layer, on its own grid or assembled from windows on that of the image."""
        context, grid = self.context, self._input_grid()
        tap = next(tap for stream in self.streams for tap in stream.taps if tap.path == layer)
        geometry = context.layers.placed_geometry(tap)
        if context.layout is not None:
            assembly = self.properties.window_assembly
            maps = torch.stack([context.layers.on_image(tap, values, assembly) for values in maps])
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
        return maps, grid, facts

    def _model_facts(self) -> ModelFacts:
        """Facts about the network with the precision in which its passes for this map ran."""
        ran = dict.fromkeys(self.session.logs[stream].precision for stream in self.streams)
        return self.model.model_copy(update={"precision": " and ".join(ran)})

    def _layer_read(self) -> str | None:
        """The layer whose values a map of the image is made of, also where none was named."""
        method = _unwrapped(self.method)
        reads = any(stream.taps for stream in self.streams)
        if not isinstance(method, FromLayer) or not (method.layer or reads):
            return None
        return method.tap(self.context).path

    def _channel_names(self, count: int, layer: str | None) -> tuple[str, ...]:
        if count == len(self.properties.channel_names):
            return self.properties.channel_names
        if layer is None and self.image is not None and count == len(self.image.channels):
            return self.image.channels
        if count == 1:
            return ("all channels",)
        return tuple(f"channel {index}" for index in range(count))

    def _stats(self, layer: str | None, maps: Tensor) -> Stats:
        shares = self._shares(maps)
        residuals = tuple(abs(share - 1) for share in shares) if shares else None
        logs = [self.session.logs[stream] for stream in self.streams]
        readers = {key for stream in self.streams for key in stream.methods}
        facts = [stream.facts(log) for stream, log in zip(self.streams, logs, strict=True)]
        findings = tuple(output.findings for output in self.outputs)
        return Stats(
            scores=self.bound.scores,
            baseline_scores=_present([output.start_score for output in self.outputs]),
            completeness=None if layer else residuals,
            flow=shares if layer else None,
            passes=sum(log.spent for log in logs),
            seconds=sum(log.seconds for log in logs),
            shared_with=tuple(sorted(readers - {self.key})),
            streams=tuple(facts),
            findings=findings if any(findings) else (),
            warnings=self._warnings(maps, logs, layer, shares or ()),
        )

    def _shares(self, maps: Tensor) -> tuple[float, ...] | None:
        """Sum of each map, before any post-step, as a share of S(x) - S(b)."""
        differences = _present([output.difference for output in self.outputs])
        if differences is None:
            return None
        totals = _present([output.total for output in self.outputs])
        sums = totals or maps.flatten(1).double().sum(dim=1).tolist()
        pairs = zip(sums, differences, strict=True)
        return tuple(
            total / difference if difference else 1 + total / _TINY for total, difference in pairs
        )

    def _warnings(
        self, maps: Tensor, logs: Sequence[PassLog], layer: str | None, shares: Sequence[float]
    ) -> tuple[str, ...]:
        remarks = [remark for log in logs for remark in log.remarks]
        remarks += [*self.context.model.remarks, *self.context.model.behavior.remarks]
        remarks += [*self.bound.field.remarks, *self.method.remarks(self.context)]
        if None in self.layers:
            taps = dict.fromkeys(tap for stream in self.streams for tap in stream.taps)
            remarks += [text for tap in taps if (text := self.context.layers.beyond(tap))]
        if self.context.layout is not None and not self._is_exact_in_windows():
            remarks.append(
                "over overlapping windows this map is near that of the whole, not equal to it"
            )
        if not torch.isfinite(maps).all():
            remarks.append("the map holds NaN or infinite values: it is not to be used")
        elif not maps.any():
            remarks.append(_ZERO_MAP[self.properties.sign == "positive"])
        for row, share in enumerate(shares):
            if abs(share - 1) > self.method.residual_limit:
                remarks.append(self._incomplete(row, share, layer))
        return tuple(dict.fromkeys(remarks))

    def _incomplete(self, row: int, share: float, layer: str | None) -> str:
        """A sentence about a map whose sum is not the change of the score."""
        difference = self.outputs[row].difference or 0.0
        image = f" of image {row}" if len(self.outputs) > 1 else ""
        if abs(difference) <= _ROUNDING * abs(self.bound.scores[row]):
            return (
                f"completeness cannot be checked: the image{image} and its baseline score "
                f"the same, while the map sums to {share * difference or (share - 1) * _TINY:.3g}"
            )
        said = (
            f"the map{image} sums to {share:.1%} of the change of the score from the baseline, "
            f"{difference:.3g}"
        )
        if layer is not None:
            few = "" if self._steps == "auto" else ", or there are too few steps"
            return f"{said}: other paths bypass layer {layer!r}{few}"
        return f"{said}: completeness is off by {abs(share - 1):.1%}{self._more_steps()}"

    @property
    def _steps(self) -> int | str | None:
        """Of the path of the method; None where it has none."""
        return getattr(_unwrapped(self.method), "steps", None)

    def _more_steps(self) -> str:
        if self._steps == "auto":
            return f", more than the {self.method.residual_limit:.0%} that were looked for"
        return f", which more than {self._steps} steps may mend" if self._steps else ""

    def _is_exact_in_windows(self) -> bool:
        streams_are = all(stream.request.exact_in_windows for stream in self.streams)
        return streams_are and self.properties.exact_in_windows

    def _target_facts(self) -> tuple[TargetFacts, ...]:
        bound = self.bound
        written = bound.target.model_dump(mode="python", exclude={"kind"})
        parameters = {name: _without_files(value) for name, value in written.items()}
        activation = _activation(bound)
        return tuple(
            TargetFacts(
                kind=bound.target.kind,
                in_words=words,
                parameters=parameters,
                score=bound.scores[row],
                baseline_score=self.outputs[row].start_score,
                probability=_probability(bound, row, activation),
                activation=activation,
                field_size=bound.field.size(row),
            )
            for row, words in enumerate(bound.field.in_words)
        )

    def _baseline(self) -> dict[str, Any] | None:
        """Name and intensities of the baseline, of the first image."""
        baseline = self.properties.baseline
        if baseline is None:
            return None
        image = self.session.batch.images[0]
        levels = baseline_image(baseline, image).reshape(len(image), -1).mean(dim=1).tolist()
        name = "tensor" if isinstance(baseline, Tensor) else baseline
        facts: dict[str, Any] = {"name": name, "model_intensity": levels}
        if self.image is not None:
            facts["source_intensity"] = [
                self.image.source_intensity(level)[index] for index, level in enumerate(levels)
            ]
        return facts


def _unwrapped(method: Method) -> Method:
    """The method inside all wrappers."""
    while isinstance(method, Wrapper):
        method = method.of
    return method


def _present(values: Sequence[float | None]) -> tuple[float, ...] | None:
    """The values of all images, or None where there are none."""
    present = tuple(value for value in values if value is not None)
    return present or None


def _probability(bound: BoundTarget, row: int, activation: Activation | None) -> float | None:
    """Of the class, for classifiers."""
    label, output = bound.field.label_of(row), bound.unperturbed.output
    if output.ndim > 2 or label is None or activation is None:
        return None
    return float(probability_of(output, label, activation)[row])


def _activation(bound: BoundTarget) -> Activation | None:
    """What makes probabilities of the output; None for units of layers, and where it is unclear."""
    activation, output = bound.target.activation, bound.unperturbed
    if bound.field.layer is not None or output.is_unclear(activation):
        return None
    return output.activation(activation)


def _without_files(value: Any) -> Any:
    """A parameter for the sidecar: an array by its shape, a path as ``file``."""
    if isinstance(value, str):
        return "file" if "/" in value else value
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    if isinstance(value, dict):
        return {key: _without_files(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_files(entry) for entry in value]
    shape = getattr(value, "shape", None)
    return {"array": list(shape)} if shape is not None else "file"
