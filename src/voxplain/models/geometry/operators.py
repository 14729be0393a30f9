"""The rules for the layouts of operator outputs, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch._ops import OpOverload

from voxplain.models.geometry import joining, sampling, views
from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.layout import CellLayout, channels
from voxplain.models.geometry.views import Layouts

Rule = Callable[[TracedCall], Layouts]


def follow(operator: OpOverload, call: TracedCall) -> list[CellLayout | None]:
    """The layout of each output of a call with at least one argument of known layout.

    Operators without a rule are assumed to keep the layout if they keep the shape, and else to
    divide each axis evenly; both are marked as not exact.
    """
    name = operator._schema.name.removeprefix("aten::")
    if torch.Tag.view_copy in operator.tags:
        name = name.removesuffix("_copy")
    rule = RULES.get(name) or RULES.get(name.rstrip("_"))
    derived: Layouts = None
    if rule:
        derived = _derived(rule, call)
    elif name.endswith("_like") or name.startswith("new_"):
        return [None] * len(call.outputs)
    elif torch.Tag.pointwise in operator.tags or name.endswith("_"):
        derived = joining.elementwise(call)
    if derived is None:
        return [assume(call.known[0][1], tuple(output.shape)) for output in call.outputs]
    if isinstance(derived, CellLayout):
        derived = [derived] * len(call.outputs)
    return [
        layout if layout and layout.shape == tuple(output.shape) else None
        for layout, output in zip(derived, call.outputs, strict=True)
    ]


def _derived(rule: Rule, call: TracedCall) -> Layouts:
    """What a rule derives; None for a form of the operator for which it is not made."""
    try:
        return rule(call)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def assume(layout: CellLayout, shape: tuple[int, ...]) -> CellLayout | None:
    """The layout after dividing every axis evenly to a shape, marked as not exact."""
    assumed = replace(layout, exact=False)
    if len(shape) != len(layout.dims):
        return None
    for index, size in enumerate(shape):
        before = assumed.dims[index].size
        if size != before:
            step = before / size
            resampled = assumed.resample(index, (step - 1) / 2, step, size, max(step - 1, 0))
            summed = assumed.collapse([index], keep=True).with_dimension(index, channels(size))
            assumed = resampled or summed
    return assumed


def _keep(call: TracedCall) -> Layouts:
    """Normalizations, softmax and attention keep the layout of their first tensor."""
    layout = call.known[0][1]
    return [layout if tuple(out.shape) == layout.shape else None for out in call.outputs]


def _query(call: TracedCall) -> Layouts:
    layout = call.layout("query")
    if layout is None:
        return None
    values = layout.with_dimension(len(layout.dims) - 1, channels(call.shape[-1]))
    return [values, *[None] * (len(call.outputs) - 1)]


def _reduce(call: TracedCall) -> Layouts:
    layout = call.layout()
    keep = bool(call.arguments.get("keepdim", False))
    return layout and layout.collapse(call.dims(), keep)


def _product(call: TracedCall, left: str, right: str) -> Layouts:
    """Matrix products: the result has the layout of the operand whose rows or columns are cells."""
    first, second = call.layout(left), call.layout(right)
    size = call.shape[-1]
    rows = first and sampling.mix_channels(first, size, len(first.dims) - 1)
    columns = second and _columns(second, call.shape)
    return rows if rows and (joining.spatial_axes(rows) or columns is None) else columns or rows


def _columns(layout: CellLayout, shape: Sequence[int]) -> CellLayout:
    index = len(layout.dims) - 2
    return layout.collapse([index], keep=True).with_dimension(index, channels(shape[-2]))


_KEEPERS = (
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_batch_norm_with_update cudnn_batch_norm miopen_batch_norm native_layer_norm "
    "native_group_norm _fused_rms_norm rms_norm _softmax _log_softmax softmax log_softmax clone "
    "_to_copy detach alias lift lift_fresh contiguous channel_shuffle "
    "_transformer_encoder_layer_fwd native_channel_shuffle"
)
_UNTAGGED = (
    "hardswish _prelu_kernel prelu log_sigmoid_forward rsub rrelu_with_noise dropout native_dropout"
)
_ATTENTION = (
    "scaled_dot_product_attention _scaled_dot_product_flash_attention "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable "
    "_native_multi_head_attention"
)
_VIEWS = "view _unsafe_view reshape _reshape_alias _unsafe_reshape"
_REDUCTIONS = (
    "mean sum amax amin max min median mode prod var std var_mean std_mean norm linalg_vector_norm "
    "logsumexp argmax argmin any all nansum nanmean count_nonzero"
)
_POOLS = "max_pool{r}d max_pool{r}d_with_indices avg_pool{r}d"
_ADAPTIVE = "_adaptive_avg_pool{r}d adaptive_avg_pool{r}d adaptive_max_pool{r}d"
_PADS = "reflection_pad{r}d replication_pad{r}d"
_INTERPOLATIONS = (
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa"
)


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    operators = (name.format(r=rank) for name in names.split() for rank in (1, 2, 3))
    return dict.fromkeys(operators, rule)


RULES: dict[str, Rule] = {
    **_named("convolution convolution_overrideable", sampling.convolution),
    **_named(_POOLS, sampling.pooling),
    **_named(_ADAPTIVE, sampling.adaptive_pooling),
    **_named(f"constant_pad_nd {_PADS}", sampling.padding),
    **{name: partial(sampling.interpolation, name=name) for name in _INTERPOLATIONS.split()},
    **_named(_KEEPERS, _keep),
    **_named(_UNTAGGED, joining.elementwise),
    **_named(_ATTENTION, _query),
    **_named(_VIEWS, views.reshape),
    **_named(_REDUCTIONS, _reduce),
    **_named("split split_with_sizes", views.pieces),
    "unfold": sampling.unfold,
    "pixel_shuffle": sampling.pixel_shuffle,
    "pixel_unshuffle": sampling.pixel_unshuffle,
    "permute": views.permute,
    "transpose": partial(views.transpose, first="dim0", second="dim1"),
    "t": partial(views.transpose, first=0, second=1),
    "unsqueeze": views.unsqueeze,
    "squeeze": views.squeeze,
    "expand": views.expand,
    "repeat": views.repeat,
    "cat": joining.cat,
    "stack": joining.stack,
    "slice": views.slicing,
    "select": views.select,
    "unbind": views.unbind,
    "index_select": views.index_select,
    "index": views.advanced_index,
    "roll": views.roll,
    "flip": views.flip,
    "rot90": views.rot90,
    "index_copy": views.index_copy,
    "mm": partial(_product, left="self", right="mat2"),
    "bmm": partial(_product, left="self", right="mat2"),
    "addmm": partial(_product, left="mat1", right="mat2"),
    "baddbmm": partial(_product, left="batch1", right="batch2"),
}
"""The rule of each operator, by its name without namespace and overload."""
