"""Layers of a network on one input: their geometry, and their maps on the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from voxplain.engine.taps import INPUT, Tap, tapping
from voxplain.errors import ModelError
from voxplain.models.geometry import LayerGeometry, confirmed, interpolation, layer_geometry, place
from voxplain.models.layers import (
    LayerInfo,
    convolution_stages,
    find_layer,
    last_feature_layer,
    list_layers,
)
from voxplain.models.layout import Layout
from voxplain.models.model import Model
from voxplain.models.output_place import OutputPlace, at_box, covered_ends

Assembly = Literal["blend", "sum"]
"""What overlapping windows do: values are blended as outputs are; what holds the gradient of each
window adds up to the gradient of the whole."""
Interpolation = Literal["linear", "nearest"]


class NetworkLayers:
    """The layers of a network on one input, whole or in windows.

    Args:
        model: The network under study.
        example: What one call of the network sees, ``(1, C, *spatial)``: the image or a window.
        shape: Spatial shape of the image.
        layout: The windows over the image, or None.
    """

    def __init__(
        self, model: Model, example: Tensor, shape: tuple[int, ...], layout: Layout | None
    ) -> None:
        self.model, self.example = model, example
        self.shape, self.layout = shape, layout
        self._geometry: dict[Tap, LayerGeometry] = {}
        self._confirmed: set[Tap] = set()
        self._channels: dict[Tap, int] = {}

    @cached_property
    def listed(self) -> tuple[LayerInfo, ...]:
        """The layers in execution order."""
        with self.model.at_rest():
            return tuple(list_layers(self.model.network, self.example))

    def taps(
        self, paths: Sequence[str], side: str = "output", *, each_tensor: bool = False
    ) -> tuple[Tap, ...]:
        """Taps at these layers; at the default layer where none is named, ``all`` for every leaf.

        Args:
            paths: As in ``get_submodule``.
            side: The output or the input of the layers.
            each_tensor: Whether a layer that returns several tensors has a tap for each of them,
                ``path[0]``, ``path[1]`` and so on, instead of one for the first.

        Raises:
            ModelError: With the nearest names, if a layer does not exist.
        """
        if not paths:
            paths = [self.default_layer]
        elif tuple(paths) == ("all",):
            paths = [info.path for info in self.listed if info.leaf]
        found = tuple(Tap(path, "input" if side == "input" else "output") for path in paths)
        for tap in found:
            find_layer(self.model.network, tap.module)
        if not each_tensor or side == "input":
            return found
        return tuple(each for tap in found for each in self._each_tensor(tap))

    @cached_property
    def placed_leaves(self) -> tuple[str, ...]:
        """Paths of the layers without layers inside whose cells have places in the image."""
        leaves = (info.path for info in self.listed if info.leaf and info.spatial)
        return tuple(path for path in leaves if self._has_place(Tap(path)))

    def _has_place(self, tap: Tap) -> bool:
        try:
            self.placed_geometry(tap)
        except ModelError:
            return False
        return True

    def _each_tensor(self, tap: Tap) -> tuple[Tap, ...]:
        """A tap for every tensor of numbers that a layer returns."""
        info = next((info for info in self.listed if info.path == tap.module), None)
        if info is None or len(info.shapes) < 2 or "[" in tap.path:
            return (tap,)
        call = tap.path.removeprefix(tap.module)
        numbered = [Tap(f"{tap.module}[{number}]{call}") for number in range(len(info.shapes))]
        taps = tapping(self.model.network, tuple(numbered))
        with torch.no_grad(), self.model.at_rest(), taps as tapped:
            self.model(self.example)
        with_gradient = [each for each in numbered if tapped[each].is_floating_point()]
        return tuple(with_gradient) if len(with_gradient) > 1 else (tap,)

    @cached_property
    def default_layer(self) -> str:
        """The layer of the last feature map before the head, where CAMs are taken."""
        with self.model.at_rest():
            return last_feature_layer(self.model.network, self.example)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The layers at which convolutions end, after their activation, without the head."""
        with self.model.at_rest():
            return tuple(convolution_stages(self.model.network, self.example))

    def channels(self, tap: Tap) -> int:
        """How many channels a layer has."""
        if tap not in self._channels:
            self._channels[tap] = self.arranged(tap, self._activation(tap, self.example)).shape[1]
        return self._channels[tap]

    def _activation(self, tap: Tap, images: Tensor) -> Tensor:
        with torch.no_grad(), self.model.at_rest():
            with tapping(self.model.network, (tap,)) as tapped:
                self.model(images)
            return tapped[tap]

    def geometry(self, tap: Tap) -> LayerGeometry:
        """Where the cells of a layer lie in what the network sees, as far as it can be derived."""
        if tap not in self._geometry:
            self.locate((tap,))
        return self._geometry[tap]

    def placed_geometry(self, tap: Tap) -> LayerGeometry:
        """Where the cells of a layer lie in what the network sees.

        Raises:
            ModelError: If this can neither be derived from the functions before the layer nor be
                confirmed by what it answers to impulses.
        """
        geometry = self.geometry(tap)
        if geometry.exact or tap in self._confirmed:
            return geometry
        found = confirmed(geometry, partial(self._activation, tap), self.example)
        if found is None and not geometry.spatial:
            found = geometry  # a single cell, such as a unit of the head, has no place to be wrong
        if found is None:
            raise ModelError(
                f"the places of the cells of layer {tap.path!r} in the image cannot be derived "
                "from the functions before it, and its answers to impulses do not confirm a "
                "regular grid; choose a layer before functions that move voxels"
            )
        self._geometry[tap] = found
        self._confirmed.add(tap)
        return found

    def locate(self, taps: Sequence[Tap]) -> None:
        """Follows one forward and keeps the geometry of these layers."""
        if INPUT in taps:
            self._geometry.setdefault(INPUT, _of_input(self.example))
        for side in ("output", "input"):
            paths = [tap.path for tap in taps if tap.side == side and tap not in self._geometry]
            found = self._listed if side == "output" else {}
            if not found.keys() >= {*paths}:
                with self.model.at_rest():
                    found = layer_geometry(self.model.network, self.example, paths, side)
            self._geometry.update({Tap(path, side): found[path] for path in paths})

    @property
    def _listed(self) -> dict[str, LayerGeometry]:
        """Geometry of the outputs that listing the layers brought along, if they were listed."""
        layers: tuple[LayerInfo, ...] = self.__dict__.get("listed", ())
        return {info.path: info.geometry for info in layers}

    def arranged(self, tap: Tap, activation: Tensor) -> Tensor:
        """An activation or its gradient as ``(B, K, *cells)``, tokens on their grid."""
        return self.geometry(tap).as_map(activation)

    def on_image(
        self,
        tap: Tap,
        layer_map: Tensor,
        windows: Assembly = "blend",
        mode: Interpolation = "linear",
        outside: float = 0,
    ) -> Tensor:
        """A layer map ``(K, *cells)`` on the image grid, ``(K, *spatial)``.

        Args:
            tap: The layer.
            layer_map: For windowed models ``(K, windows, *cells)``.
            windows: What overlapping windows do.
            mode: Between cells.
            outside: The value where the image lies beyond the cells, after valid convolutions.

        Raises:
            ModelError: If the layer has no place left in the image.
        """
        geometry = self.placed_geometry(tap)
        if self.shape and not geometry.spatial:
            raise ModelError(
                f"layer {tap.path!r} has no places in the image left; choose a layer with spatial "
                f"axes, such as {self.default_layer!r}"
            )
        if self.layout is None:
            placed = place(layer_map, geometry, self.shape, mode)
            return _only(placed, _covered(geometry, self.shape), outside)
        return self._assembled(self.layout, layer_map, geometry, windows, mode)

    def interpolation(self, tap: Tap, voxels: NDArray[np.int64]) -> csr_array:
        """The matrix that takes the cells of a layer to some voxels of the image.

        A product with it has the values of :meth:`on_image` there, but for rounding.

        Args:
            tap: The layer of a network that sees the image whole.
            voxels: Positions in the flattened image.

        Raises:
            ModelError: If the cells of the layer have no known places in the image.
        """
        geometry = self.placed_geometry(tap)
        return interpolation(geometry, self.shape, voxels, _covered(geometry, self.shape))

    def beyond(self, tap: Tap) -> str | None:
        """A sentence where a layer does not cover the image whole; with windows, none."""
        geometry = self.geometry(tap)
        if (
            self.layout is not None
            or not geometry.spatial
            or len(geometry.shape) != len(self.shape)
        ):
            return None
        box = _covered(geometry, self.shape)
        if box == _whole(self.shape):
            return None
        covered = OutputPlace.of_box(box, self.shape).in_words()
        return f"layer {tap.path!r} covers {covered}; beyond them its map is 0"

    def _assembled(
        self,
        layout: Layout,
        layer_map: Tensor,
        geometry: LayerGeometry,
        windows: Assembly,
        mode: Interpolation,
    ) -> Tensor:
        volume = layer_map.new_zeros(len(layer_map), *layout.padded)
        box, shown = _covered(geometry, layout.size), volume.new_zeros(1, *layout.padded)
        is_partial = box != _whole(layout.size)
        for index, position in enumerate(layout.positions):
            part = _only(place(layer_map[:, index], geometry, layout.size, mode), box)
            if windows == "blend":
                weights = layout.blend_weights([position], part)[0]
                part = part * weights
                shown[layout.region(position)] += _only(weights, box) if is_partial else 0
            volume[layout.region(position)] += part
        if windows == "blend" and is_partial:
            volume = torch.where(shown > 0, volume / shown, 0)
        return layout.unpad(volume)

    @property
    def has_data_norms(self) -> bool:
        """Whether norms divide by the spread of the data they see, as instance norms do."""
        kinds = (
            nn.modules.instancenorm._InstanceNorm,
            nn.GroupNorm,
            nn.LayerNorm,
            nn.RMSNorm,
            nn.LocalResponseNorm,
        )
        return any(isinstance(module, kinds) for module in self.model.network.modules())


def _of_input(example: Tensor) -> LayerGeometry:
    """Every voxel of an image is a cell."""
    shape = tuple(example.shape[2:])
    return LayerGeometry((0.0,) * len(shape), (1.0,) * len(shape), shape, exact=True)


def _covered(geometry: LayerGeometry, shape: Sequence[int]) -> tuple[slice, ...]:
    """The voxels of an image that the cells of a layer cover."""
    axes = zip(geometry.start, geometry.stride, geometry.shape, shape, strict=True)
    return tuple(slice(*covered_ends(*axis)) for axis in axes)


def _whole(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(0, side) for side in shape)


def _only(values: Tensor, box: tuple[slice, ...], outside: float = 0) -> Tensor:
    """Values ``(K, *spatial)`` inside a box, and another value outside of it."""
    if box == _whole(values.shape[1:]):
        return values
    kept = torch.full_like(values, outside)
    kept[at_box(box)] = values[at_box(box)]
    return kept
