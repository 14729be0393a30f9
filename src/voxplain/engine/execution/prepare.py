"""Preparation of a session: one forward, bound targets, declared streams."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from voxplain.engine.binding import BoundTarget, References, references_of
from voxplain.engine.context import Context
from voxplain.engine.execution.outcome import Batch
from voxplain.engine.execution.session import Progress, Session
from voxplain.engine.method import Method
from voxplain.engine.randomness import image_key
from voxplain.engine.requests import GradientRequest
from voxplain.errors import ModelError, VoxplainWarning
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Target
from voxplain.targets.contrast import facing


def prepare(
    model: Model,
    images: Image | Tensor,
    methods: Sequence[Method],
    target: Target,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Session, BoundTarget, Image | None]:
    """Looks at the images once, binds the targets and declares the streams; runs no pass yet."""
    context = Context.open(model, images)
    if context.layout is not None and context.layout.is_padded:
        warnings.warn(
            f"the window {context.layout.size} is larger than the image {context.shape}; "
            "the image is padded with zeros at its end",
            VoxplainWarning,
            stacklevel=3,
        )
    _require_differentiable(model, methods, context)
    overrides = [
        request.target
        for method in methods
        for request in method.requests(context)
        if request.target is not None
    ]
    context.look([target, *overrides])
    main = context.bind(target)
    keys = tuple(f"{seed}/{image_key(row)}" for row in context.inputs)
    others = tuple(references_of(references, row) for row in context.inputs)

    def bound(asked: Target) -> BoundTarget:
        return main if asked is target else context.bind(facing(asked, target))

    session = Session(
        context,
        methods,
        target,
        bound,
        Batch(context.inputs, keys, others),
        memory,
        progress,
        home=images.device if isinstance(images, Tensor) else images.data.device,
    )
    return session, main, context.image


def _require_differentiable(model: Model, methods: Sequence[Method], context: Context) -> None:
    """Methods of gradients need a network that has them; masks are content with scores."""
    needy = [
        method.key
        for method in methods
        if any(isinstance(request, GradientRequest) for request in method.requests(context))
    ]
    if not needy:
        return
    if not model.differentiable:
        raise ModelError(
            f"{model.name} is a forward-only black box (ONNX or TorchScript), and {needy[0]} needs "
            "the network as a PyTorch module; methods that mask the image, such as occlusion, rise "
            "and kernel_shap, do without"
        )
    if any(part.is_inference() for part in model.network.parameters()):
        raise ModelError(
            f"{model.name} was made or loaded under torch.inference_mode, whose tensors have no "
            "gradients; make it outside"
        )
