"""The grid of a layer in the network's input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor, nn

from voxplain.errors import ModelError, nearest
from voxplain.models.geometry.arrange import arrange, cell_runs, flat_atoms
from voxplain.models.geometry.follow import LayerCall, TracedTensor, follow_network
from voxplain.models.geometry.layout import CellLayout, Roll


@dataclass(frozen=True)
class LayerGeometry:
    """The grid of a layer: cell ``i`` of an axis lies at input voxel ``start + stride * i``.

    Attributes:
        start: Voxel of cell 0 per axis, the center of its receptive field.
        stride: Voxels per cell, per axis; negative after a flip.
        shape: Cells per axis; 1 for axes that the layer no longer has.
        exact: Whether all operators were followed; else some layouts are assumed from shapes.
        layout: The cells in the tensor, None where unknown.
        rolled: Cells by which :meth:`as_map` rolls an activation back, per axis; empty for none.
    """

    start: tuple[float, ...]
    stride: tuple[float, ...]
    shape: tuple[int, ...]
    exact: bool
    layout: CellLayout | None = field(default=None, repr=False, compare=False)
    rolled: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @property
    def spatial(self) -> bool:
        """Whether the layer has more than one cell."""
        return any(size > 1 for size in self.shape)

    def as_map(self, activation: Tensor) -> Tensor:
        """An activation (or its gradient) with channels first and one dimension per image axis.

        Tokens of a transformer get back their grid (without class tokens), windows and slices in
        the batch dimension are unfolded, rolled cells come back to the order of the image, and
        channels come first.

        Args:
            activation: The output of the layer for any number of images.

        Returns:
            ``(B, K, *shape)``.

        Raises:
            ModelError: If the activation has another layout than in the forward that was followed.
        """
        if self.layout is None:
            return activation.reshape(len(activation), -1, *self.shape)
        arranged = arrange(activation, self.layout)
        if not any(self.rolled):
            return arranged
        return arranged.roll(self.rolled, tuple(range(2, arranged.ndim)))


def layer_geometry(
    network: nn.Module,
    example: Tensor,
    paths: Iterable[str],
    side: Literal["output", "input"] = "output",
) -> dict[str, LayerGeometry]:
    """The grid of each layer, derived from one forward without gradients.

    Strides, paddings, dilations, transposed convolutions, both conventions of interpolation,
    skip connections and token grids are followed operator by operator. Operators without a rule
    are assumed to divide each axis evenly, ``start = (stride - 1) / 2``, and marked
    ``exact=False``.

    Paper: Araujo et al., Computing receptive fields of convolutional neural networks, Distill 2019.

    Args:
        network: Left as it was.
        example: ``(B, C, *spatial)``.
        paths: Paths of modules; ``path#2`` is the third call of a module, and the path alone its
            last call.
        side: The output of the layers, or their input (the first positional tensor).

    Raises:
        ModelError: If a path does not exist or its module is not called.
    """
    named_calls = {path: _split_path(network, path) for path in paths}
    calls: dict[str, list[LayerCall]] = {}
    for call in follow_network(network, example):
        calls.setdefault(call.path, []).append(call)
    image = tuple(example.shape[2:])
    return {
        path: geometry_of(_tensor(path, calls.get(name, []), number, tensor, side), image)
        for path, (name, number, tensor) in named_calls.items()
    }


def geometry_of(tensor: TracedTensor, image: tuple[int, ...]) -> LayerGeometry:
    """The grid of a tensor of a forward.

    Args:
        tensor: With its layout.
        image: Spatial shape of the input.
    """
    if tensor.layout is None:
        return even_geometry(tensor.shape, image)
    layout = _split_cells(tensor.layout)
    axes = [_axis(layout, axis, run) for axis, run in enumerate(cell_runs(layout))]
    start, strides, shape = zip(*axes, strict=True) if axes else ((), (), ())
    # A layer without cells along an axis has one cell over the whole of it.
    stride = tuple(step or float(size) for step, size in zip(strides, image, strict=True))
    return _rolled_back(LayerGeometry(start, stride, shape, layout.exact, layout), layout.rolled)


def _rolled_back(geometry: LayerGeometry, rolls: tuple[Roll, ...]) -> LayerGeometry:
    """The geometry in the order of the image, where whole cells were rolled, and none was lost."""
    start, rolled, exact = list(geometry.start), [0] * len(rolls), geometry.exact
    for axis, roll in enumerate(rolls):
        stride, cells = geometry.stride[axis], geometry.shape[axis]
        if not roll.shift or cells == 1:
            continue
        shift = roll.shift / stride
        start[axis] -= roll.shift
        rolled[axis] = round(shift) % cells
        whole = math.isclose(shift, round(shift), abs_tol=1e-6)
        exact = exact and whole and math.isclose(abs(stride) * cells, roll.length)
    return replace(geometry, start=tuple(start), exact=exact, rolled=tuple(rolled))


def _split_path(network: nn.Module, path: str) -> tuple[str, int, int]:
    """The first path of a module that has several, and the numbers of the call and of the tensor.

    The call is -1 for the last one, the tensor 0 for the first one.
    """
    outside, _, number = path.partition("#")
    name, _, tensor = outside.removesuffix("]").partition("[")
    modules = dict(network.named_modules(remove_duplicate=False))
    if not name or name not in modules:
        known = filter(None, modules)
        raise ModelError(f"the network has no layer {name!r}; {nearest(name, known)}")
    first = next(path for path, module in network.named_modules() if module is modules[name])
    call = int(number) if number.isdigit() else -1
    return first, call, int(tensor) if tensor.isdigit() else 0


def _tensor(path: str, calls: list[LayerCall], number: int, tensor: int, side: str) -> TracedTensor:
    if not calls:
        reasons = "gives no tensor, or lies in a TorchScript part"
        raise ModelError(f"layer {path!r} is not called for this image, {reasons}")
    if number >= len(calls):
        raise ModelError(f"layer {path!r}: there are {len(calls)} calls, numbered from #0")
    tensors = calls[number].outputs if side == "output" else calls[number].inputs
    if not tensors:
        raise ModelError(f"layer {path!r} is called with keywords only; choose its output")
    if tensor >= len(tensors):
        raise ModelError(f"layer {path!r}: there are {len(tensors)} tensors, numbered from [0]")
    return tensors[tensor]


def _axis(layout: CellLayout, axis: int, run: list[int]) -> tuple[float, float, int]:
    """Start, stride (0 where the layer has no cells along the axis) and number of cells."""
    atoms, start = flat_atoms(layout), layout.start[axis]
    for index, atom in enumerate(atoms):
        # Factors that overlap count as channels; the cell lies at their center.
        if atom.axis == axis and index not in run:
            start += atom.stride * (atom.size - 1) / 2
    stride = atoms[run[-1]].stride if run else 0.0
    return start, stride, math.prod(atoms[index].size for index in run)


def even_geometry(shape: tuple[int, ...], image: tuple[int, ...]) -> LayerGeometry:
    """Cells that divide the image evenly, as a tensor ``(B, K, *cells)`` has them; not exact.

    Args:
        shape: Of the tensor; one of another rank has a single cell.
        image: Spatial shape of the input.
    """
    cells = shape[2:] if len(shape) == len(image) + 2 else (1,) * len(image)
    stride = tuple(size / cell for size, cell in zip(image, cells, strict=True))
    return LayerGeometry(tuple((step - 1) / 2 for step in stride), stride, cells, exact=False)


def _split_cells(layout: CellLayout) -> CellLayout:
    """A layout in which inner factors subdivide the cells, if each axis has its own dimension."""
    if len(layout.dims) < 2 + len(layout.start):
        return layout
    for index, dim in enumerate(layout.dims):
        axes = {atom.axis for atom in dim.atoms if atom.spatial}
        if len(axes) == 1 and len(dim.parts) > 1:
            layout = layout.with_single_atom(index) or layout
    return layout
