"""The layers of a network in one forward, and the default layer of CAM methods."""

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
    """One layer of a network in a forward of an example.

    Attributes:
        path: As in ``get_submodule``.
        type: Class of the module.
        calls: Number of calls in one forward.
        shapes: Shapes of the tensors in the output of its last call.
        parameters: Number of parameters of the layer and the layers inside.
        geometry: Grid of its last output in the input image.
        leaf: Whether there are no layers inside.
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
        """Whether its output has more than one cell."""
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
    """The layers that one forward calls, in the order in which they begin.

    A block precedes the layers inside it. A module with two names is listed under the first.

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
    """The default layer of CAM methods: the one that returns the last feature map before the head.

    The last feature map is the last tensor before the head with more than one cell and more than
    one channel. The head consists of the layers at the end with as many channels as the network
    has outputs, with up to two convolutions: the final 1x1 convolution of a segmentation network
    (two in V-Net), the score maps of a fully convolutional classifier, an interpolation or softmax
    after them. Their channels are class scores and no features. Usually the feature map is that of
    the last convolution after its norm and rectifier; in a residual network it is the sum, in a
    DenseNet all features, in a vision transformer the last token grid.

    Args:
        network: Left as it was.
        example: ``(B, C, *spatial)``.

    Returns:
        The innermost layer that returns this tensor and is called once; if all are called more
        than once, the innermost one with the number of the call, such as ``relu#0``.

    Raises:
        ModelError: If no layer has more than one cell, as in a network of linear layers.
    """
    calls = follow_network(network, example)
    paths = [call.path for call in calls]
    for tensor in _features(network, calls, tuple(example.shape)):
        numbers = [n for n, call in enumerate(calls) if call.tensor == tensor and call.path]
        called_once = [paths[n] for n in numbers if paths.count(paths[n]) == 1]
        if called_once:
            return called_once[-1]
        if numbers:
            path, before = paths[numbers[-1]], paths[: numbers[-1]]
            return f"{path}#{before.count(path)}"
    raise ModelError(
        "no layer before the head has several channels and several cells whose places in the image "
        "are known; gradient methods at the input work, layer maps do not"
    )


def convolution_stages(network: nn.Module, example: Tensor) -> list[str]:
    """The layers at which convolutions end: their activation, else their norm, else themselves.

    What follows a convolution belongs to it as long as the shape stays. The head, a last
    convolution with as many channels as the network has outputs, is left out.

    Args:
        network: Left as it was; runs once in evaluation mode without gradients.
        example: ``(B, C, *spatial)``.

    Returns:
        Paths in execution order, with the number of the call where a layer is called repeatedly.
    """
    calls = follow_network(network, example)
    stages = _stages(network, calls, tuple(example.shape[2:]))
    outputs = next(call for call in calls if not call.path).outputs[0].shape[1]
    if len(stages) > 1 and calls[stages[-1]].outputs[0].shape[1] == outputs:
        stages = stages[:-1]
    return [_numbered([call.path for call in calls], number) for number in stages]


def _stages(network: nn.Module, calls: list[LayerCall], image: tuple[int, ...]) -> list[int]:
    """The number of the last call of every convolutional stage."""
    ends: list[int] = []
    shape: tuple[int, ...] | None = None
    for number, call in enumerate(calls):
        module = network.get_submodule(call.path)
        if next(module.children(), None) is not None:
            continue
        if isinstance(module, _CONVOLUTIONS):
            spatial = geometry_of(call.outputs[0], image).spatial
            shape = call.outputs[0].shape if spatial else None
            ends += [number] * spatial
        elif call.outputs[0].shape == shape:
            ends[-1] = number
        else:
            shape = None
    return ends


def _numbered(paths: list[str], number: int) -> str:
    """The path of a call, with its number where the layer is called more than once."""
    path = paths[number]
    return path if paths.count(path) == 1 else f"{path}#{paths[:number].count(path)}"


def _info(network: nn.Module, calls: list[LayerCall], image: tuple[int, ...]) -> LayerInfo:
    last, module = calls[-1], network.get_submodule(calls[-1].path)
    return LayerInfo(
        path=last.path,
        type=type(module).__name__,
        calls=len(calls),
        shapes=tuple(tensor.shape for tensor in last.outputs),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        geometry=geometry_of(last.outputs[0], image),
        leaf=next(module.children(), None) is None,
    )


def _features(
    network: nn.Module, calls: list[LayerCall], example: tuple[int, ...]
) -> Iterator[int]:
    """Numbers of the feature maps before the head, the last one first."""
    root = next(call for call in calls if not call.path)
    outputs, head_convolutions = root.outputs[0].shape[1], len(root.outputs) + 1
    in_head = True
    for call in sorted(calls, key=lambda call: -call.ended):
        channels = _channels(call, example)
        if not call.path or channels is None:
            continue
        is_convolution = isinstance(network.get_submodule(call.path), _CONVOLUTIONS)
        fits = channels == outputs and not (is_convolution and head_convolutions == 0)
        in_head = in_head and fits
        head_convolutions -= in_head and is_convolution
        if not in_head and channels > 1:
            yield call.tensor


def _channels(call: LayerCall, example: tuple[int, ...]) -> int | None:
    """Channels of an output with more than one cell; None for flat and pooled outputs."""
    output = call.outputs[0]
    geometry = geometry_of(output, example[2:])
    if not geometry.spatial or len(output.shape) < 3:
        return None
    return math.prod(output.shape) // (example[0] * math.prod(geometry.shape)) or None
