"""The layers of a network: which there are, what they give, which one a CAM is read from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from voxplain.errors import ModelError, nearest
from voxplain.models.geometry import LayerCall, LayerGeometry, follow_network, geometry_of

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a network as it ran on an example.

    Attributes:
        path: As in ``get_submodule``.
        type: Class of the module.
        calls: How often one forward calls it.
        shapes: Output shapes of its last call, one per tensor it gives.
        parameters: Number of parameters in it and below it.
        geometry: Cells, start and stride of its last output on the input grid.
        leaf: Whether it has no layers inside.
    """

    path: str
    type: str
    calls: int
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    geometry: LayerGeometry
    leaf: bool

    @property
    def spatial(self) -> bool:
        """Whether its output still has more than one place in the image."""
        return self.geometry.spatial

    @property
    def start(self) -> tuple[float, ...]:
        """Input voxel of cell 0, per axis."""
        return self.geometry.start

    @property
    def stride(self) -> tuple[float, ...]:
        """Input voxels per cell, per axis."""
        return self.geometry.stride


def list_layers(network: nn.Module, example: Tensor) -> list[LayerInfo]:
    """The layers that one forward calls, in the order in which they first run.

    A block stands before the layers inside it. A module under two names has its first one.

    Args:
        network: Left as it was; runs once in evaluation mode without gradients.
        example: ``(B, C, *spatial)``.
    """
    calls: dict[str, list[LayerCall]] = {}
    for call in follow_network(network, example):
        if call.path:
            calls.setdefault(call.path, []).append(call)
    image = tuple(example.shape[2:])
    return [_info(network, repeated, image) for repeated in calls.values()]


def find_layer(network: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        ModelError: With the nearest paths, if there is none.
    """
    try:
        return network.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
        raise ModelError(f"the network has no layer {path!r}; {nearest(path, known)}") from None


def last_feature_layer(network: nn.Module, example: Tensor) -> str:
    """The default layer of the CAM family: what gives the last feature map before the head.

    The last feature map is the last tensor any layer gives that has more than one place in the
    image and more than one channel, seen from the end of the network without its head. The head
    is what carries as many channels as the network has outputs, and up to two convolutions: the
    final 1x1 convolution of a segmentation network (two in V-Net), the score maps of a fully
    convolutional classifier, an interpolation or softmax after them. Its channels are the
    answer, not evidence for it. Usually the feature map is that of the last convolution after
    its norm and rectifier; but in a residual network it is the sum and not the shortcut, in a
    DenseNet all features and not the last 32, in a vision transformer the last token grid.

    Returns:
        The innermost layer that gives this tensor and runs only once; where all of them run more
        than once, the innermost one with the number of the call, such as ``relu#0``.

    Args:
        network: Left as it was.
        example: ``(B, C, *spatial)``.

    Raises:
        ModelError: If no layer has places left, as in a network of linear layers.
    """
    calls = follow_network(network, example)
    counts = [call.path for call in calls]
    for tensor in _features(network, calls, tuple(example.shape)):
        named = [at for at, call in enumerate(calls) if call.tensor == tensor and call.path]
        once = [counts[at] for at in named if counts.count(counts[at]) == 1]
        if once:
            return once[-1]
        if named:
            path, before = counts[named[-1]], counts[: named[-1]]
            return f"{path}#{before.count(path)}"
    raise ModelError(
        "no layer of the network still has places in the image; gradient methods at the input "
        "work, layer maps do not"
    )


def _info(network: nn.Module, calls: list[LayerCall], image: tuple[int, ...]) -> LayerInfo:
    last, module = calls[-1], network.get_submodule(calls[-1].path)
    return LayerInfo(
        path=last.path,
        type=type(module).__name__,
        calls=len(calls),
        shapes=tuple(place.shape for place in last.outputs),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        geometry=geometry_of(last.outputs[0], image),
        leaf=next(module.children(), None) is None,
    )


def _features(
    network: nn.Module, calls: list[LayerCall], example: tuple[int, ...]
) -> Iterator[int]:
    """The numbers of the feature maps before the head, last one first."""
    root = next(call for call in calls if not call.path)
    scores, head = root.outputs[0].shape[1], len(root.outputs) + 1
    in_head = True
    for call in sorted(calls, key=lambda one: -one.ended):
        width = _channels(call, example)
        if not call.path or width is None:
            continue
        convolution = isinstance(network.get_submodule(call.path), _CONVOLUTIONS)
        in_head = in_head and width == scores and not (convolution and head == 0)
        head -= in_head and convolution
        if not in_head and width > 1:
            yield call.tensor


def _channels(call: LayerCall, example: tuple[int, ...]) -> int | None:
    """Channels of a layer whose output has places; None for flat and pooled outputs."""
    place = call.outputs[0]
    geometry = geometry_of(place, example[2:])
    if not geometry.spatial or len(place.shape) < 3:
        return None
    return math.prod(place.shape) // (example[0] * math.prod(geometry.shape)) or None
