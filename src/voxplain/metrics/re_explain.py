"""Explaining again: the same methods on changed images, with the target fixed on the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedModules
from voxplain.engine.context import BoundTarget
from voxplain.engine.execution.networks import Outputs, run_networks
from voxplain.engine.execution.session import Batch, Session
from voxplain.engine.method import Method
from voxplain.metrics.context import MetricContext
from voxplain.targets import Target, WeightField

FieldMove = Callable[[WeightField], WeightField]
"""Moves a weight field the way an image was moved."""


def explain_again(
    context: MetricContext,
    images: Tensor,
    methods: Sequence[Method] | None = None,
    moved: FieldMove | None = None,
    key: str | None = None,
    scores: Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps ``(n, C, *spatial)`` of changed images by the key of their method.

    Random draws are those of the original image, so that differences are due to the change alone.
    Methods that share a stream are explained together.

    Args:
        context: The original image, its target and its methods.
        images: ``(n, C, *spatial)``.
        methods: Some of the methods; all of them if None.
        moved: How the weight field follows the image, where the change moves it.
        key: Seed of the random draws, if not that of the original.
        scores: S of the images, where it is known.
    """
    chosen = list(context.methods if methods is None else methods)
    if not chosen:
        return {}
    (outputs,) = run_networks([_session(context, images, chosen, moved, key, scores)])
    return _maps(chosen, outputs)


def explain_networks(
    contexts: Sequence[MetricContext],
    images: Tensor,
    methods: Sequence[Method],
    shared: SharedModules | None = None,
) -> list[dict[str, Tensor]]:
    """The maps of :func:`explain_again` for several networks, in one run.

    Args:
        contexts: The same context with a network each.
        images: ``(n, C, *spatial)``.
        methods: The methods.
        shared: Which modules give the same in several networks, and run once for all of them.
    """
    sessions = [_session(context, images, methods) for context in contexts]
    return [_maps(methods, outputs) for outputs in run_networks(sessions, shared)]


def _session(
    context: MetricContext,
    images: Tensor,
    methods: Sequence[Method],
    moved: FieldMove | None = None,
    key: str | None = None,
    scores: Tensor | None = None,
) -> Session:
    count, original = len(images), context.input
    return Session(
        context.engine,
        methods,
        context.bound.target,
        lambda target: _bound(context, target, images, moved, scores),
        Batch(images, (key or original.key,) * count, (original.references,) * count),
    )


def _maps(methods: Sequence[Method], outputs: Outputs) -> dict[str, Tensor]:
    return {
        method.key: torch.stack(
            [method.finish(output.maps[None]) for output in outputs[method.key]]
        )
        for method in methods
        if None in outputs[method.key][0].maps
    }


def _bound(
    context: MetricContext,
    target: Target,
    images: Tensor,
    moved: FieldMove | None,
    scores: Tensor | None,
) -> BoundTarget:
    """A target as it was bound on the original image, for each of the changed images."""
    original = context.bound
    if target is not original.target:
        original, scores = BoundTarget.of(target, original.unperturbed), None
    field = original.field.rows([context.input.row] * len(images))
    field = moved(field) if moved else field
    if scores is None or moved:
        scoring = context.with_bound(replace(original, field=field))
        scores = scoring.predict_many(
            len(images), lambda numbers: images[numbers.start : numbers.stop]
        ).scores
    return replace(original, field=field, scores=tuple(scores.tolist()))
