"""One image as the network sees it inside: activations of layers, whole or in windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.interventions import Replacement
from voxplain.engine.network_layers import Interpolation, NetworkLayers
from voxplain.engine.taps import Tap, tapping
from voxplain.models.windowed_output import blended


@dataclass(frozen=True, eq=False)
class Observation:
    """The activations of some layers for one image, and the output.

    Attributes:
        layers: The layers of the network on this image.
        values: Activations by their tap, ``(K, *cells)``; ``(K, windows, *cells)`` for a network
            with windows.
        output: ``(1, K)`` or ``(1, K, *cells)``; blended of the windows.
    """

    layers: NetworkLayers
    values: Mapping[Tap, Tensor]
    output: Tensor

    def __getitem__(self, tap: Tap) -> Tensor:
        return self.values[tap]

    def on_image(
        self,
        tap: Tap,
        channels: Sequence[int] | slice = slice(None),
        mode: Interpolation = "linear",
    ) -> Tensor:
        """Channels of a layer on the grid of the image, ``(channels, *spatial)``.

        Cells are interpolated from where they lie in the image, and windows blended as outputs are.

        Raises:
            ModelError: If the layer has no places in the image.
        """
        return self.layers.on_image(tap, self.values[tap][channels], mode=mode)


def observe(
    context: Context, taps: Sequence[Tap] = (), replacements: Sequence[Replacement] = ()
) -> Observation:
    """Runs the network once on an image, without gradients, and keeps activations of layers.

    Args:
        context: The network and one image.
        taps: Where to look; what is seen there is what replacements have made of it.
        replacements: Units of layers that get other values on the way.

    Raises:
        ModelError: With the nearest names, if a layer does not exist.
    """
    forward = _Forward(context, tuple(taps), replacements)
    layout, image = context.layout, context.inputs[0]
    with torch.no_grad(), context.model.at_rest(), context.model.exact():
        if layout is None:
            output = forward(image[None])
        else:
            output = blended(forward, image, layout, at_once=1)[None]
    return Observation(context.layers, forward.values, output)


class _Forward:
    """Calls of the network for one image, in the order of its windows."""

    def __init__(
        self, context: Context, taps: tuple[Tap, ...], replacements: Sequence[Replacement]
    ) -> None:
        self._context, self._taps, self._replacements = context, taps, replacements
        self._found: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
        self._calls = 0
        context.layers.locate((*taps, *(each.tap for each in replacements)))

    def __call__(self, inputs: Tensor) -> Tensor:
        model, layers = self._context.model, self._context.layers
        here = [self._at_call(each) for each in self._replacements]
        changes = {each.tap: each.change(layers) for each in here}
        with tapping(model.network, tuple({*self._taps, *changes}), changes) as tapped:
            output = model(inputs)
        for tap, found in self._found.items():
            found.append(layers.arranged(tap, tapped[tap].detach())[0].clone())
        self._calls += 1
        return output

    def _at_call(self, replacement: Replacement) -> Replacement:
        if self._context.layout is None:
            return replacement
        return replace(replacement, values=replacement.values[:, self._calls])

    @property
    def values(self) -> dict[Tap, Tensor]:
        if self._context.layout is None:
            return {tap: part for tap, (part,) in self._found.items()}
        return {tap: torch.stack(parts, dim=1) for tap, parts in self._found.items()}
