"""One network, one batch of images, some methods: their streams, targets and passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.context import BoundTarget, Context, References, references_of
from voxplain.engine.execution.gradient_runner import GradientRunner
from voxplain.engine.execution.masked_runner import MaskedRunner
from voxplain.engine.execution.runner import Runner
from voxplain.engine.identity import image_key
from voxplain.engine.memory import BatchBudget
from voxplain.engine.method import Method, streams_of
from voxplain.engine.passes.points import PassLog
from voxplain.engine.recomputation.recomputation import Recomputation
from voxplain.engine.requests import GradientRequest, MaskRequest, Request, Stream
from voxplain.engine.rules import guard
from voxplain.errors import ModelError
from voxplain.models.failures import WITHOUT_GRADIENTS
from voxplain.models.precision import LOW, Precision
from voxplain.targets import Target
from voxplain.targets.contrast import resolve_target

Progress = Callable[[int, int], None]
"""Called with passes done and passes planned."""

_RUNNERS: dict[type[Request], type[Any]] = {
    GradientRequest: GradientRunner,
    MaskRequest: MaskedRunner,
}


@dataclass(frozen=True, eq=False)
class Batch:
    """The images of one call.

    Attributes:
        images: ``(B, C, *spatial)`` in model space.
        keys: What the random draws of each image depend on.
        references: Per image the others it may be compared with, or None.
    """

    images: Tensor
    keys: tuple[str, ...]
    references: tuple[Tensor | None, ...]


class Session:
    """One network, one batch, some methods: from declarations to streams that can run.

    Args:
        context: The network and the images.
        methods: With distinct keys.
        target: What is explained, where a method does not name its own.
        bind: Binds a target on this batch.
        batch: The images.
        memory: Bytes for activations, None for the default of the device.
        progress: Called with passes done and planned.

    Attributes:
        methods: By their key.
        streams: The distinct streams of the methods.
        bound: The target of each stream, bound on the batch.
        logs: How each stream ran, once it has.
    """

    def __init__(
        self,
        context: Context,
        methods: Sequence[Method],
        target: Target,
        bind: Callable[[Target], BoundTarget],
        batch: Batch,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.context, self.batch, self.memory = context, batch, memory
        self.methods = {method.key: method for method in methods}
        self.streams = streams_of(methods, context, target)
        self.logs: dict[Stream[Request], PassLog] = {}
        targets = {id(stream.target): stream.target for stream in self.streams}
        bound = {key: bind(target) for key, target in targets.items()}
        self.bound = {stream: bound[id(stream.target)] for stream in self.streams}
        if taps := [tap for stream in self.streams for tap in stream.taps]:
            context.layers.locate(taps)
        self._progress, self._done = progress, 0

    @classmethod
    def open(
        cls,
        context: Context,
        methods: Sequence[Method],
        target: Target,
        references: References = None,
        seed: int = 0,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Session:
        """Binds the targets on the output for the images, and declares the streams.

        Args:
            context: The network and the images.
            methods: With distinct keys.
            target: What is explained.
            references: Other images on the same grid.
            seed: Of every random draw.
            memory: Bytes for activations, None for the default of the device.
            progress: Called with passes done and planned.

        Raises:
            VoxplainError: In one sentence, whatever does not fit.
        """
        requests = [(method, each) for method in methods for each in method.requests(context)]
        _require_gradients(context, requests)
        own = [request.target for _, request in requests if request.target is not None]
        if own:  # all of their layers in one look
            context.seen([target, *own])
        main = context.bind(target)
        batch = Batch(
            context.inputs,
            tuple(f"{seed}/{image_key(image)}" for image in context.inputs),
            tuple(
                None if references is None else references_of(references, image)
                for image in context.inputs
            ),
        )

        def bind(other: Target) -> BoundTarget:
            return main if other is target else context.bind(resolve_target(other, target))

        return cls(context, methods, target, bind, batch, memory, progress)

    @property
    def planned(self) -> int:
        """Passes of the whole batch."""
        rows = range(len(self.batch.images))
        return sum(self.passes_of(stream, row) for stream in self.streams for row in rows)

    def passes_of(self, stream: Stream[Request], row: int) -> int:
        """Passes of a stream for one image of the batch, as planned."""
        references, images = self.batch.references[row], self.batch.images
        if references is None and isinstance(stream.request, MaskRequest):
            others = (images != images[row]).flatten(1).any(dim=1)
            return stream.passes(int(others.sum()))
        return stream.passes(0 if references is None else len(references))

    def runner(
        self, stream: Stream[Request], precision: Precision, stack: contextlib.ExitStack
    ) -> Runner:
        """A stream ready to run in a precision; the network is at rest until the stack closes."""
        request, bound = stream.request, self.bound[stream]
        model = self.context.model.in_precision(precision)
        stack.enter_context(model.at_rest())
        if not request.rule.is_plain:
            stack.enter_context(guard(model.network))
        field = bound.field.to(torch.float64) if precision == "float64" else bound.field
        passes = self.context.passes(model, request.rule, field, stream.places, bound.rebind)
        passes.log.precision = precision
        self.logs[stream] = passes.log
        kind = _RUNNERS[type(request)]
        if self.context.layout is None and not model.behavior.one_by_one:
            image, offload = self.batch.images[0], model.offload
            budget = kind.batch_budget(model.device, self.memory, image, offload)
        else:  # of volumes in windows several at once save nothing
            budget = BatchBudget(1, model.device, model.offload)
        if isinstance(request, GradientRequest):
            moved = request.sampler.interpolated
            recomputation = Recomputation(passes, self.context, () if moved is None else (moved,))
            if reason := budget.allow(recomputation, self.batch.images[0].nbytes):
                remark = f"nothing was computed again in the backward pass: {reason}"
                passes.log.remarks[remark] = None
        own = precision in LOW  # then scores of the images would differ from those of points
        scores = None if stream.noise or own else bound.scores
        runner: Runner = kind(stream, passes, budget, self.tick, scores, self.context)
        runner.planned = self.passes_of(stream, 0)
        return runner

    @staticmethod
    def kind_of(stream: Stream[Request]) -> type[Any]:
        """The class of the runner of a stream."""
        return _RUNNERS[type(stream.request)]

    def tick(self, points: int) -> None:
        """Counts passes."""
        self._done += points
        if self._progress is not None:
            self._progress(self._done, self.planned)


def _require_gradients(context: Context, requests: Sequence[tuple[Method, Request]]) -> None:
    """Gradient streams need a differentiable network; masked ones need scores only."""
    method = next((method for method, request in requests if not request.forwards_only), None)
    if method is None:
        return
    model = context.model
    if not model.differentiable:
        raise ModelError(
            f"{model.name} is a forward-only black box (ONNX or TorchScript), and {method.key} "
            f"needs the network as a PyTorch module; {WITHOUT_GRADIENTS}"
        )
    if any(parameter.is_inference() for parameter in model.network.parameters()):
        raise ModelError(
            f"{model.name} was made or loaded under torch.inference_mode, whose tensors have no "
            "gradients; make it outside"
        )
