"""The output of a network for a volume that it sees in windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.behavior import Call
from voxplain.models.layout import Layout
from voxplain.models.output_place import OutputPlace
from voxplain.models.windows import Window


def windows_over(
    window: Window,
    volume: Tensor,
    spacing: Sequence[float] | None,
    place_of: Callable[[Tensor], OutputPlace | None],
    call: Call,
) -> Layout:
    """The windows over a volume, with the place of their outputs.

    Args:
        window: What is asked for.
        volume: ``(C, *spatial)``.
        spacing: Millimeters per voxel, for windows in mm.
        place_of: Where the cells of the output for ``(1, C, *size)`` lie; None if unknown.
        call: The network.

    Raises:
        ConfigError: If windows do not fit the volume or the output.
        ModelError: If the outputs have another resolution and an unknown place.
    """
    shape = tuple(volume.shape[1:])
    layout = window.layout(shape, spacing)
    example = layout.example(volume)
    place = place_of(example)
    if place is not None:
        _require_order(place)
        return layout if place.is_same else window.layout(shape, spacing, place)
    cells = tuple(call(example).shape[2:])
    if not cells:
        return layout
    raise ModelError(
        f"this network maps windows of {tuple(example.shape[2:])} to {cells}, whose place in the "
        "window is unknown, and sliding windows need an output of the resolution of the window "
        "or with a known place"
    )


def _require_order(place: OutputPlace) -> None:
    if any(stride <= 0 for stride in place.stride):
        raise ModelError(
            "the network turns the image around, so the outputs of neighboring windows would not "
            "lie beside each other; sliding windows need an output in the order of the image"
        )


def blended(call: Call, image: Tensor, layout: Layout, at_once: int) -> Tensor:
    """The output for one image, blended of those of its windows, ``(K, *layout.place.cells)``.

    Args:
        call: The network.
        image: ``(C, *spatial)``.
        layout: The windows over it.
        at_once: Windows per call.
    """
    padded, tiles = layout.pad(image), layout.outputs
    output: Tensor | None = None
    for positions in layout.batches(at_once):
        outputs = dense(call, layout.cut(padded, positions))
        outputs = outputs * tiles.blend_weights(positions, outputs)
        if output is None:
            output = outputs.new_zeros(outputs.shape[1], *tiles.grid)
        for position, window in zip(positions, outputs, strict=True):
            output[tiles.region(position)] += window
    if output is None:
        raise ModelError(f"no window fits a volume of shape {layout.shape}")
    return layout.crop(output)


def dense(call: Call, windows: Tensor) -> Tensor:
    """The output for windows ``(n, C, *size)``, ``(n, K, *cells)``.

    The scores ``(n, K)`` of a classifier of windows count for every voxel of their window, so
    that a volume has a grid of scores: at each voxel, those of its windows, blended.
    """
    output = call(windows)
    if output.ndim > 2:
        return output
    size = windows.shape[2:]
    return output.view(*output.shape, *(1,) * len(size)).expand(-1, -1, *size)
