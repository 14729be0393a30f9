"""Whether a stream may run in a lower precision: only where that agrees with float32."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from torch import Tensor

from voxplain.engine.execution.runner import Runner
from voxplain.engine.execution.session import Session
from voxplain.engine.execution.trial import in_words, is_refused, least_agreement
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import VoxplainError
from voxplain.models.failures import GradientError, quoted
from voxplain.models.precision import HALF, Precision

_WORTH_TRYING = 4
"""Streams with fewer passes than so many trials run in float32 at once where nothing is asked."""


def checked(
    session: Session,
    stream: Stream[Request],
    precision: Precision,
    items: Sequence[StreamInput],
    stack: contextlib.ExitStack,
) -> Runner:
    """A stream ready to run in a lower precision; in float32, and with a remark, where it differs.

    Both precisions run a few passes of the stream, and what comes of them is compared: gradients
    at the input and at tapped layers, or scores under masks and what masks take from the score.

    Args:
        session: The network and the images.
        stream: What to run.
        precision: The lower one.
        items: Some inputs of the stream.
        stack: Keeps the network at rest.
    """
    found, reason = _verdict(session, stream, precision, items)
    runner = session.runner(stream, "float32" if reason is not None else precision, stack)
    log = runner.passes.log
    log.agreement = found
    if reason:
        log.remarks[f"{reason}, so this map was computed in float32"] = None
    return runner


def _verdict(
    session: Session, stream: Stream[Request], precision: Precision, items: Sequence[StreamInput]
) -> tuple[float | None, str | None]:
    """How far a lower precision agrees, and why float32 runs; None where the lower one runs.

    The reason is empty where nobody asked for the lower precision and it would save no time.
    """
    model, passes = session.context.model, session.passes_of(stream, 0)
    device = model.device.type
    if precision not in HALF and device != "cuda":
        return None, f"there is no {precision} on {device}"
    if model.precision == "auto" and passes < _WORTH_TRYING * session.kind_of(stream).trial_passes:
        return None, ""
    return _agreement(session, stream, precision, items)


def _agreement(
    session: Session, stream: Stream[Request], precision: Precision, items: Sequence[StreamInput]
) -> tuple[float | None, str | None]:
    """How far a trial agrees with float32, and why it does not do; None where it does."""
    try:
        exact = _trial(session, stream, "float32", items)
    except GradientError as error:  # the stream itself will say so
        return None, str(error)
    if not exact:
        return None, f"what is computed next depends on gradients, which {precision} rounds"
    try:
        low = _trial(session, stream, precision, items)
    except (VoxplainError, RuntimeError) as error:
        return 0.0, f"the network does not run in {precision} ({quoted(error.__cause__ or error)})"
    found = least_agreement(low, exact)
    return found, in_words(precision, found) if is_refused(found) else None


def _trial(
    session: Session, stream: Stream[Request], precision: Precision, items: Sequence[StreamInput]
) -> list[Tensor]:
    with contextlib.ExitStack() as stack:
        runner = session.runner(stream, precision, stack)
        return [values for item in items for values in runner.trial(item)]
