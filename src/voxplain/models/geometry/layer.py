"""Where the cells of a layer lie on the grid of the network's input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from voxplain.errors import ModelError, nearest
from voxplain.models.geometry.arrange import arrange, cell_runs, flat_atoms
from voxplain.models.geometry.follow import LayerCall, Place, follow_network
from voxplain.models.geometry.layout import AxisLayout


@dataclass(frozen=True)
class LayerGeometry:
    """The grid of a layer: cell ``i`` of an axis sits at input voxel ``start + stride * i``.

    Attributes:
        start: Voxel of cell 0 per axis, the center of what it has seen.
        stride: Voxels per cell; negative after a flip.
        shape: Cells per axis; 1 along an axis the layer no longer has.
        exact: Whether every step was followed; otherwise some were assumed from the shapes.
        layout: How the tensor holds the cells, None where it is unknown.
    """

    start: tuple[float, ...]
    stride: tuple[float, ...]
    shape: tuple[int, ...]
    exact: bool
    layout: AxisLayout | None = field(default=None, repr=False, compare=False)

    @property
    def spatial(self) -> bool:
        """Whether the layer still has more than one place."""
        return any(size > 1 for size in self.shape)

    def as_map(self, activation: Tensor) -> Tensor:
        """An activation (or its gradient) with channels first and one dimension per image axis.

        Tokens of a transformer return to their grid (class tokens are left out), windows and
        slices folded into the batch are unfolded, channels-last becomes channels-first.

        Args:
            activation: What the layer gave, with any number of images.

        Returns:
            ``(B, K, *shape)``.

        Raises:
            ModelError: If the activation is not laid out as in the forward that was followed.
        """
        if self.layout is None:
            return activation.reshape(len(activation), -1, *self.shape)
        return arrange(activation, self.layout)


def layer_geometry(
    network: nn.Module,
    example: Tensor,
    paths: Iterable[str],
    side: Literal["output", "input"] = "output",
) -> dict[str, LayerGeometry]:
    """The grid of each layer, followed through one forward without gradients.

    Strides, paddings, dilations, transposed convolutions, both conventions of interpolation,
    skips and token grids are followed operator by operator (Araujo et al., "Computing receptive
    fields of convolutional neural networks", Distill 2019). What no rule covers is assumed to
    divide each axis evenly, ``start = (stride - 1) / 2``, and marked ``exact=False``.

    Args:
        network: Left as it was.
        example: ``(B, C, *spatial)``.
        paths: Module paths; of a module that is called repeatedly ``path#2`` is the third call,
            and the last one counts where no number is given.
        side: What leaves the layers, or what enters them (their first positional tensor).

    Raises:
        ModelError: If a path does not exist or its module is not called.
    """
    wanted = {path: _split_path(network, path) for path in paths}
    calls: dict[str, list[LayerCall]] = {}
    for call in follow_network(network, example):
        calls.setdefault(call.path, []).append(call)
    image = tuple(example.shape[2:])
    return {
        path: geometry_of(_place(path, calls.get(name, []), number, side), image)
        for path, (name, number) in wanted.items()
    }


def geometry_of(place: Place, image: tuple[int, ...]) -> LayerGeometry:
    """The grid of a tensor of the forward on an image of a spatial shape."""
    if place.layout is None:
        return _assumed(place.shape, image)
    layout = _split_cells(place.layout)
    axes = [_axis(layout, axis, run) for axis, run in enumerate(cell_runs(layout))]
    start = tuple(one[0] for one in axes)
    stride = tuple(one[1] or float(size) for one, size in zip(axes, image, strict=True))
    return LayerGeometry(start, stride, tuple(one[2] for one in axes), layout.exact, layout)


def _split_path(network: nn.Module, path: str) -> tuple[str, int]:
    """The name under which a module is followed, and the number of the call."""
    name, _, number = path.partition("#")
    every = dict(network.named_modules(remove_duplicate=False))
    if not name or name not in every:
        raise ModelError(f"the network has no layer {name!r}; {nearest(name, filter(None, every))}")
    first = next(one for one, module in network.named_modules() if module is every[name])
    return first, int(number) if number.isdigit() else -1


def _place(path: str, calls: list[LayerCall], number: int, side: str) -> Place:
    if not calls:
        why = "gives no tensor, or lies in a TorchScript part"
        raise ModelError(f"layer {path!r} is not called for this image, {why}")
    if number >= len(calls):
        raise ModelError(f"layer {path!r}: there are {len(calls)} calls, numbered from #0")
    places = calls[number].outputs if side == "output" else calls[number].inputs
    if not places:
        raise ModelError(f"layer {path!r} is called with keywords only; choose its output")
    return places[0]


def _axis(layout: AxisLayout, axis: int, run: list[int]) -> tuple[float, float, int]:
    """Start, stride (0 where the layer has no cells along the axis) and number of cells."""
    atoms, start = flat_atoms(layout), layout.start[axis]
    for index, atom in enumerate(atoms):
        # Factors that overlap count as channels; the cell sits at their center.
        if atom.axis == axis and index not in run:
            start += atom.stride * (atom.size - 1) / 2
    stride = atoms[run[-1]].stride if run else 0.0
    return start, stride, math.prod(atoms[index].size for index in run)


def _assumed(shape: tuple[int, ...], image: tuple[int, ...]) -> LayerGeometry:
    cells = shape[2:] if len(shape) == len(image) + 2 else (1,) * len(image)
    stride = tuple(size / cell for size, cell in zip(image, cells, strict=True))
    return LayerGeometry(tuple((step - 1) / 2 for step in stride), stride, cells, exact=False)


def _split_cells(layout: AxisLayout) -> AxisLayout:
    """Where each axis has a dimension of its own, inner factors subdivide the cells."""
    if len(layout.dims) < 2 + len(layout.start):
        return layout
    for index, dim in enumerate(layout.dims):
        axes = {atom.axis for atom in dim.atoms if atom.spatial}
        if len(axes) == 1 and len(dim.parts) > 1:
            layout = layout.solid(index) or layout
    return layout
