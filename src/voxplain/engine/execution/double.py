"""Whether a stream may run in float64: only where the network gives the scores of its own type."""

from __future__ import annotations

import torch
from torch import Tensor

from voxplain.engine.context import BoundTarget
from voxplain.engine.execution.session import Session
from voxplain.engine.passes.points import Points
from voxplain.engine.requests import GradientRequest, Request, Stream
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import ModelError
from voxplain.models.failures import quoted
from voxplain.models.model import Model

DIFFERENT = 0.01
"""Difference from which on scores are others, relative to the largest one."""


def reason_against_double(session: Session, stream: Stream[Request]) -> str | None:
    """Why a stream should not run in float64, in a sentence; None where it may.

    The scores of the first image and of the reference that a paired rule compares it with must be
    those that the network gives in its own type. They are others where a constant depends on the
    type, as the epsilon of RMSNorm does.
    """
    context, bound = session.context, session.bound[stream]
    if context.model.dtype is torch.float64:
        return None
    images = _images(session, stream)
    own = [torch.tensor(bound.scores[:1], dtype=torch.float64)]
    if len(images) > 1:
        own.append(_scores(session, context.model, bound, images[1:]))
    try:
        double = _scores(session, context.model.in_double(), bound, images.double())
    except ModelError as error:
        return f"the network does not run in float64 ({quoted(error.__cause__ or error)})"
    return _difference(torch.cat(own), double)


def _images(session: Session, stream: Stream[Request]) -> Tensor:
    """The first image, and its first reference for paired rules; ``(1 or 2, C, *spatial)``."""
    batch, request = session.batch, stream.request
    image = batch.images[:1]
    if not isinstance(request, GradientRequest) or not request.rule.paired:
        return image
    item = StreamInput(
        image[0], 0, batch.keys[0], batch.references[0], spacing=session.context.spacing
    )
    start = request.sampler.route(item).draw(range(1)).start
    return image if start is None else torch.cat([image, start])


def _scores(session: Session, model: Model, bound: BoundTarget, images: Tensor) -> Tensor:
    field = bound.field.to(images.dtype)
    with model.at_rest():
        passes = session.context.passes(model, Plain(), field, (), bound.rebind)
        return passes.scores(Points(images, [0] * len(images)))


def _difference(own: Tensor, double: Tensor) -> str | None:
    largest = float(torch.cat([own, double]).abs().max())
    worst = int((own - double).abs().argmax())
    if float((own - double).abs()[worst]) <= DIFFERENT * largest:
        return None
    return (
        f"the network gives another score in float64 ({float(double[worst]):.4g} instead of "
        f"{float(own[worst]):.4g})"
    )
