"""Excitation backprop: the evidence for a score, handed from winner to winner."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Excitation, ThroughLayer
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Tap


class _Evidence(Method):
    """A map of winning probabilities at the image, or at a layer and brought to the image.

    Attributes:
        layer: Path of the layer; the image itself if None.
        side: What leaves the layer, or what enters it.
        on_unknown: What to do about a function that evidence arrives at and that has no rule.
    """

    family = "rule"
    units: ClassVar[str] = "share of the evidence"
    positive: ClassVar[bool] = True

    layer: str | None = Field(default=None, description="path; absent: the image itself")
    side: Literal["output", "input"] = "output"
    on_unknown: Literal["error", "warn"] = "error"

    def _place(self, context: Context) -> Tap:
        return context.taps((self.layer,), self.side)[0] if self.layer else INPUT

    def _request(self, context: Context, rule: Excitation) -> GradientRequest:
        return GradientRequest(Original(), MeanGradient, rule, (self._place(context),))


@register
class ExcitationBackprop(_Evidence):
    """Where the evidence for the score comes from; all shares together are 1.

    The evidence enters at the output where the target is, whatever its link. What arrives at
    units that nothing raises but their bias gets lost; the sidecar says how much. A voxel with a
    negative intensity excites nothing and has share 0.
    """

    formula = "p = x+ W+^T (q / (W+ x+)) from function to function, q = W+ / sum W+ at the output"
    reference = "Zhang et al., 2016"
    name: Literal["excitation_backprop"] = "excitation_backprop"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass."""
        return (self._request(context, Excitation(on_unknown=self.on_unknown)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The shares of the voxels, or those of cells spread over their voxels."""
        ((tap, shares),) = results[0].items()
        return {None: shares if tap == INPUT else _spread(context, tap, _summed(shares))}


@register
class ContrastiveExcitationBackprop(_Evidence):
    """Where the evidence for the score outweighs the evidence against it.

    The evidence against it goes through the negated weights of the last linear map. Everything
    below is linear in what flows, so that the difference of both maps is what subtracting at the
    input of that map and going on gives. With a contrast layer, what bypasses it is left out.

    Attributes:
        contrast_layer: The subtraction is made at the output of this layer; at the input of the
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
            (tap,) = context.taps((self.contrast_layer,))
            through = ThroughLayer(tap.path)
        rules = (
            Excitation(against=against, through=through, on_unknown=self.on_unknown)
            for against in (False, True)
        )
        return tuple(self._request(context, rule) for rule in rules)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One channel; rectified at the cells, or where windows have been added up."""
        tap = self._place(context)
        pro, contra = (_summed(part[tap]) for part in results)
        if tap == INPUT:
            return {None: (pro - contra).clamp(min=0)}
        if context.layout is None:
            return {None: _spread(context, tap, (pro - contra).clamp(min=0))}
        difference = _spread(context, tap, pro) - _spread(context, tap, contra)
        return {None: difference.clamp(min=0)}


def _summed(shares: Tensor) -> Tensor:
    return shares.sum(dim=0, keepdim=True)


def _spread(context: Context, tap: Tap, shares: Tensor) -> Tensor:
    """Shares of cells on the image grid; interpolated, with the sum they had."""
    placed = context.on_image(tap, shares, "sum")
    total = placed.sum()
    return placed * (shares.sum() / total) if bool(total > 0) else placed
