"""Excitation backprop: shares of the voxels in the evidence for a score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.base import FromLayer
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Excitation, ThroughLayer
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Side, Tap

_TELLING = 0.01
"""Share of negative voxels from which on readers are told."""


class _ExcitationMethod(FromLayer):
    """A map of winning probabilities at the image, or at a layer and brought to the image.

    Attributes:
        layer: Path of the layer; the image itself if None.
        side: The output or the input of the layer.
        on_unknown: What to do about a function without a rule that probability arrives at.
    """

    family = "rule"
    units = "share of the evidence"
    positive = True

    layer: str | None = Field(default=None, description="path; absent: the image itself")
    side: Side = "output"
    on_unknown: Literal["error", "warn"] = "error"

    def remarks(self, context: Context) -> tuple[str, ...]:
        """How much of the image is negative, and so excites nothing."""
        negative = float((context.inputs < 0).double().mean())
        if self.layer is not None or negative < _TELLING:
            return ()
        return (
            f"{negative:.0%} of the intensities that the network sees are negative: they excite "
            "nothing, and their voxels have share 0",
        )

    def _place(self, context: Context) -> Tap:
        return self.tap(context, self.side) if self.layer or self.layers else INPUT

    def _request(self, context: Context, rule: Excitation) -> GradientRequest:
        return GradientRequest(Original(), MeanGradient, rule, (self._place(context),))


@register
class ExcitationBackprop(_ExcitationMethod):
    """The share of each voxel in the evidence for the score; all shares add up to 1.

    The probabilities start at the output where the target is, whatever its link. Probability that
    arrives at units which only their bias excites is lost; the sidecar says how much. A voxel with
    a negative intensity excites nothing and has share 0.
    """

    formula = "p = x+ W+^T (q / (W+ x+)) from function to function, q = W+ / sum W+ at the output"
    reference = "Zhang et al., 2016"
    name: Literal["excitation_backprop"] = "excitation_backprop"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        return (self._request(context, Excitation(on_unknown=self.on_unknown)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The shares of the voxels, or those of the cells of a layer over their voxels."""
        ((tap, shares),) = results[0].items()
        if tap == INPUT:
            return {None: shares}
        return {None: _on_image(context, tap, shares.sum(dim=0, keepdim=True))}


@register
class ContrastiveExcitationBackprop(_ExcitationMethod):
    """The share of each voxel in the evidence for the score, minus that in the evidence against.

    The evidence against the score passes the negated weights of the last linear map. Everything
    below is linear in the probabilities, so that the difference of the two maps is the map of the
    difference at the input of that layer. With a contrast layer, what bypasses it is left out.

    Attributes:
        contrast_layer: The difference is taken at the output of this layer; at the input of the
            last linear map if None.
    """

    formula = "ReLU(sum over channels of p(S) - p(-S))"
    reference = "Zhang et al., 2016"
    name: Literal["contrastive_excitation_backprop"] = "contrastive_excitation_backprop"
    contrast_layer: str | None = Field(
        default=None, description="path; absent: the input of the last linear map"
    )

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Two passes, the first of them that of ``excitation_backprop``."""
        through = None
        if self.contrast_layer is not None:
            (tap,) = context.layers.taps((self.contrast_layer,))
            through = ThroughLayer(tap.path)
        rules = (
            Excitation(against=against, through=through, on_unknown=self.on_unknown)
            for against in (False, True)
        )
        return tuple(self._request(context, rule) for rule in rules)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One channel, rectified at the cells; with windows, on the image after they are summed."""
        tap = self._place(context)
        pro, contra = (stream[tap].sum(dim=0, keepdim=True) for stream in results)
        if tap == INPUT:
            return {None: (pro - contra).clamp(min=0)}
        if context.layout is None:
            return {None: _on_image(context, tap, (pro - contra).clamp(min=0))}
        difference = _on_image(context, tap, pro) - _on_image(context, tap, contra)
        return {None: difference.clamp(min=0)}


def _on_image(context: Context, tap: Tap, shares: Tensor) -> Tensor:
    """Shares of the cells of a layer, interpolated on the image grid and scaled to keep the sum."""
    placed = context.layers.on_image(tap, shares, "sum")
    total = placed.sum()
    return placed * (shares.sum() / total) if bool(total > 0) else placed
