"""What every torch operator does to the place of its cells: one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch._ops import OpOverload

from voxplain.geometry import sampling
from voxplain.geometry.call import Call
from voxplain.geometry.layout import Atom, Dim, Layout, channels

Layouts = Layout | None | Sequence[Layout | None]


def follow(operator: OpOverload, call: Call) -> list[Layout | None]:
    """The layout of each output of a call, at least one of whose arguments has a known one.

    An operator that no rule covers keeps the layout where the shape stays, and is otherwise
    assumed to divide each axis evenly; both are marked as not exact.
    """
    name = operator._schema.name.removeprefix("aten::").removesuffix("_copy")
    rule = RULES.get(name) or RULES.get(name.rstrip("_"))
    found: Layouts = None
    if rule:
        found = rule(call)
    elif name.endswith("_like") or name.startswith("new_"):
        return [None] * len(call.outputs)
    elif torch.Tag.pointwise in operator.tags or name.endswith("_"):
        found = elementwise(call)
    if found is None:
        return [assume(call.known[0][1], tuple(output.shape)) for output in call.outputs]
    layouts = [found] * len(call.outputs) if isinstance(found, Layout) else list(found)
    return [
        layout if layout and layout.shape == tuple(output.shape) else None
        for layout, output in zip(layouts, call.outputs, strict=True)
    ]


def assume(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The layout under the assumption that every axis was divided evenly, marked as assumed."""
    guess = replace(layout, exact=False)
    if len(shape) != len(layout.dims):
        return None
    for index, size in enumerate(shape):
        before = guess.dims[index].size
        if size != before:
            step = before / size
            moved = guess.resample(index, (step - 1) / 2, step, size, max(step - 1, 0))
            guess = moved or guess.collapse([index], keep=True).put(index, channels(size))
    return guess


def elementwise(call: Call) -> Layout | None:
    """Broadcast operators: the operand that has seen least says where the result lies.

    In a residual or skip connection both branches share the grid, and the shorter one shows it
    without the drift of strided layers on the longer one.
    """
    shape = call.shape
    candidates = [
        _broadcast(layout, shape) for value, layout in call.known if value.ndim <= len(shape)
    ]
    return lead(candidates)


def lead(candidates: Sequence[Layout]) -> Layout | None:
    """The layout of a result with several sources: most axes, then shortest reach, then mean."""
    if not candidates:
        return None
    axes = max(map(_axes, candidates))
    full = [layout for layout in candidates if _axes(layout) == axes]
    best = min(full, key=lambda layout: sum(layout.reach))
    peers = [one for one in full if one.dims == best.dims and one.reach == best.reach]
    start = tuple(
        sum(parts) / len(peers) for parts in zip(*(one.start for one in peers), strict=True)
    )
    exact = all(one.exact for one in peers)
    return replace(best, start=start, exact=exact)


def _axes(layout: Layout) -> int:
    atoms = (atom for dim in layout.dims for atom in dim.atoms)
    return len({atom.axis for atom in atoms if atom.spatial and atom.size > 1})


def _broadcast(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout under a larger shape: what is repeated there has no place of its own."""
    missing = len(shape) - len(layout.dims)
    for index in range(missing):
        layout = layout.insert(index, shape[index])
    for index, size in enumerate(shape):
        if layout.dims[index].size != size:
            layout = layout.put(index, channels(size))
    return layout


def _keep(call: Call) -> Layouts:
    """Normalizations, softmax and attention keep the place of the first tensor they take."""
    layout = call.known[0][1]
    return [layout if tuple(out.shape) == layout.shape else None for out in call.outputs]


def _query(call: Call) -> Layouts:
    layout = call.layout("query")
    if layout is None:
        return None
    values = layout.put(len(layout.dims) - 1, channels(call.shape[-1]))
    return [values, *[None] * (len(call.outputs) - 1)]


def _reshape(call: Call) -> Layouts:
    layout = call.layout()
    return layout and layout.reshape(call.shape)


def _permute(call: Call) -> Layouts:
    layout = call.layout()
    return layout and layout.permute(call.dims("dims"))


def _transpose(call: Call, first: str | int, second: str | int) -> Layouts:
    layout, order = call.layout(), list(range(call["self"].ndim))
    if layout is None or len(order) < 2:
        return layout
    one = call.dim(first) if isinstance(first, str) else first
    two = call.dim(second) if isinstance(second, str) else second
    order[one], order[two] = order[two], order[one]
    return layout.permute(order)


def _unsqueeze(call: Call) -> Layouts:
    layout = call.layout()
    return layout and layout.insert(call.dim(ndim=len(call.shape)))


def _squeeze(call: Call) -> Layouts:
    layout, shape = call.layout(), call["self"].shape
    for index in sorted(call.dims(), reverse=True):
        layout = layout.drop(index) if layout and shape[index] == 1 else layout
    return layout


def _expand(call: Call) -> Layouts:
    layout = call.layout()
    return layout and _broadcast(layout, call.shape)


def _repeat(call: Call) -> Layouts:
    layout = call.layout()
    if layout is None:
        return None
    for _ in range(len(call.shape) - len(layout.dims)):
        layout = layout.insert(0)
    for index, size in enumerate(call.shape):
        times = size // max(layout.dims[index].size, 1)
        if times > 1:
            layout = layout.put(index, Dim((Atom(times), *layout.dims[index].parts)))
    return layout


def _cat(call: Call) -> Layouts:
    tensors: list[Tensor] = [tensor for tensor in call["tensors"] if tensor.numel()]
    layouts = [call.layout_of(tensor) for tensor in tensors]
    index = int(call["dim"]) % tensors[0].ndim
    known = [layout for layout in layouts if layout is not None]
    if not any(layout.dims[index].spatial for layout in known):
        size = call.shape[index]
        return lead([layout.put(index, channels(size)) for layout in known])
    if len(known) == 1:
        return _margins(known[0], index, layouts, [tensor.shape[index] for tensor in tensors])
    return _continued(layouts, index, call.shape[index])


def _margins(
    layout: Layout, index: int, layouts: list[Layout | None], sizes: list[int]
) -> Layout | None:
    """A class token, or constant padding, joined to a dimension with a place."""
    at, tokens = layouts.index(layout), layout.dims[index].tokens
    if tokens is None:
        return None
    before, after = tokens.before + sum(sizes[:at]), tokens.after + sum(sizes[at + 1 :])
    return layout.put(index, Dim.of(tokens.atoms, before, after))


def _continued(layouts: list[Layout | None], index: int, size: int) -> Layout | None:
    """Pieces of one axis put together again, where each begins where the last one ended."""
    first = layouts[0] and layouts[0].solid(index)
    if first is None:
        return None
    atom, cells = first.dims[index].atoms[0], 0
    for layout in layouts:
        piece = layout and layout.solid(index)
        moved = first.resample(index, cells, 1, piece.dims[index].size) if piece else None
        if piece is None or moved is None or atom.axis is None:
            return None
        if piece.dims != moved.dims or not _close(piece.start, moved.start):
            return None
        cells += piece.dims[index].size
    return first.resample(index, 0, 1, size)


def _close(one: Sequence[float], two: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one, two, strict=True))


def _stack(call: Call) -> Layouts:
    layouts = [call.layout_of(tensor) for tensor in call["tensors"]]
    index = int(call["dim"]) % len(call.shape)
    size = call.shape[index]
    return lead([layout.insert(index, size) for layout in layouts if layout is not None])


def _slice(call: Call) -> Layouts:
    layout, index = call.layout(), call.dim()
    begin, end, step = slice(call["start"], call["end"], call["step"]).indices(
        call["self"].shape[index]
    )
    return layout and _sliced(layout, index, begin, end, step)


def _sliced(layout: Layout, index: int, begin: int, end: int, step: int) -> Layout | None:
    size, tokens = max(0, math.ceil((end - begin) / step)), layout.dims[index].tokens
    if (begin, end, step) == (0, layout.dims[index].size, 1):
        return layout
    if tokens is None:
        return None
    first, last = tokens.before, tokens.before + tokens.cells
    if step == 1 and begin <= first and end >= last:
        return layout.put(index, Dim.of(tokens.atoms, first - begin, end - last))
    if end <= first or begin >= last:
        return layout.collapse([index], keep=True).put(index, channels(size))
    return layout.resample(index, begin, step, size)


def _pieces(call: Call) -> Layouts:
    layout, index, begin = call.layout(), call.dim(), 0
    found: list[Layout | None] = []
    for output in call.outputs:
        end = begin + output.shape[index]
        found.append(layout and _sliced(layout, index, begin, end, 1))
        begin = end
    return found


def _select(call: Call) -> Layouts:
    layout, index = call.layout(), call.dim()
    return layout and layout.select(index, int(call["index"]) % call["self"].shape[index])


def _unbind(call: Call) -> Layouts:
    layout, index = call.layout(), call.dim()
    return layout and [layout.select(index, at) for at in range(len(call.outputs))]


def _index_select(call: Call) -> Layouts:
    layout = call.layout()
    return layout and _picked(layout, call.dim(), call["index"])


def _index(call: Call) -> Layouts:
    layout = call.layout()
    given = [(at, index) for at, index in enumerate(call["indices"]) if index is not None]
    if layout is None or len(given) != 1 or given[0][1].ndim != 1:
        return None
    return _picked(layout, *given[0])


def _picked(layout: Layout, dim: int, index: Tensor) -> Layout | None:
    """Cells by a list of indices: an even step is followed, any other order has no place."""
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    places = [int(place) % layout.dims[dim].size for place in index.tolist()]
    step = places[1] - places[0] if len(places) > 1 else 1
    if step and places == list(range(places[0], places[0] + step * len(places), step)):
        return layout.resample(dim, places[0], step, len(places))
    return layout.collapse([dim], keep=True).put(dim, channels(len(places)))


def _roll(call: Call) -> Layouts:
    layout = call.layout()
    for index, shift in zip(call.dims("dims"), call["shifts"], strict=True):
        layout = layout and layout.resample(index, -shift, 1, call.shape[index])
    return layout


def _flip(call: Call) -> Layouts:
    layout = call.layout()
    for index in call.dims("dims"):
        size = call.shape[index]
        layout = layout and layout.resample(index, size - 1, -1, size)
    return layout


def _reduce(call: Call) -> Layouts:
    layout = call.layout()
    keep = bool(call.arguments.get("keepdim", False))
    return layout and layout.collapse(call.dims(), keep)


def _product(call: Call, left: str, right: str) -> Layouts:
    """Matrix products: the side whose rows or columns have a place gives it to the result."""
    one, two = call.layout(left), call.layout(right)
    size = call.shape[-1]
    rows = one and sampling.mix_channels(one, size, len(one.dims) - 1)
    columns = two and _columns(two, call.shape)
    return rows if rows and (_axes(rows) or columns is None) else columns or rows


def _columns(layout: Layout, shape: Sequence[int]) -> Layout:
    at = len(layout.dims) - 2
    return layout.collapse([at], keep=True).put(at, channels(shape[-2]))


Rule = Callable[[Call], Layouts]

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
    every = (name.format(r=rank) for name in names.split() for rank in (1, 2, 3))
    return dict.fromkeys(every, rule)


RULES: dict[str, Rule] = {
    **_named("convolution convolution_overrideable", sampling.convolution),
    **_named(_POOLS, sampling.pooling),
    **_named(_ADAPTIVE, sampling.adaptive_pooling),
    **_named(f"constant_pad_nd {_PADS}", sampling.padding),
    **{one: partial(sampling.interpolation, name=one) for one in _INTERPOLATIONS.split()},
    **_named(_KEEPERS, _keep),
    **_named(_UNTAGGED, elementwise),
    **_named(_ATTENTION, _query),
    **_named(_VIEWS, _reshape),
    **_named(_REDUCTIONS, _reduce),
    **_named("split split_with_sizes", _pieces),
    "unfold": sampling.unfold,
    "pixel_shuffle": sampling.pixel_shuffle,
    "pixel_unshuffle": sampling.pixel_unshuffle,
    "permute": _permute,
    "transpose": partial(_transpose, first="dim0", second="dim1"),
    "t": partial(_transpose, first=0, second=1),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "repeat": _repeat,
    "cat": _cat,
    "stack": _stack,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "index_select": _index_select,
    "index": _index,
    "roll": _roll,
    "flip": _flip,
    "mm": partial(_product, left="self", right="mat2"),
    "bmm": partial(_product, left="self", right="mat2"),
    "addmm": partial(_product, left="mat1", right="mat2"),
    "baddbmm": partial(_product, left="batch1", right="batch2"),
}
"""The rule of each operator, by its name without namespace and overload."""
