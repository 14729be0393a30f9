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
"""What happens to the weight field when the image moves under it."""


def explain_again(
    context: MetricContext,
    images: Tensor,
    methods: Sequence[Method] | None = None,
    moved: FieldMove | None = None,
    key: str | None = None,
    scores: Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps ``(n, C, *spatial)`` of changed images by the key of their method.

    Random draws are those of the original, so that what differs is due to the change alone.
    Methods that share a stream are explained together.

    Args:
        context: The original image, its target and its methods.
        images: ``(n, C, *spatial)``.
        methods: Some of the methods; all of them if None.
        moved: How the weight field follows the image, where the change is one of place.
        key: Other random draws than those of the original.
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
    alike: SharedModules | None = None,
) -> list[dict[str, Tensor]]:
    """The maps of :func:`explain_again` for one question about several networks.

    Args:
        contexts: The same one, about a network each.
        images: ``(n, C, *spatial)``.
        methods: The methods.
        alike: What the networks compute alike, which is run once for all of them.
    """
    sessions = [_session(context, images, methods) for context in contexts]
    return [_maps(methods, outputs) for outputs in run_networks(sessions, alike)]


def _session(
    context: MetricContext,
    images: Tensor,
    methods: Sequence[Method],
    moved: FieldMove | None = None,
    key: str | None = None,
    scores: Tensor | None = None,
) -> Session:
    count, item = len(images), context.item
    return Session(
        context.base,
        methods,
        context.bound.target,
        lambda asked: _bound(context, asked, images, moved, scores),
        Batch(images, (key or item.key,) * count, (item.references,) * count),
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
    asked: Target,
    images: Tensor,
    moved: FieldMove | None,
    scores: Tensor | None,
) -> BoundTarget:
    """The target as it was bound on the original, for each of the changed images."""
    original = context.bound
    if asked is not original.target:
        original, scores = BoundTarget.of(asked, original.seen), None
    rows = [context.item.row] * len(images)
    field = original.field.rows(rows)
    field = moved(field) if moved else field
    if scores is None or moved:
        taken = context.with_bound(replace(original, field=field))
        scores = taken.of_all(len(images), lambda part: images[part.start : part.stop]).scores
    return replace(original, field=field, scores=tuple(scores.tolist()))
