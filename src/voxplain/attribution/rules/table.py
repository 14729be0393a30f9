"""Which torch functions exist in which family: the only place where functions are named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxplain.attribution.rules.calls import Call, Family, Operation, bind

_SPACES: tuple[Any, ...] = (
    F,
    torch,
    Tensor,
    torch._C._nn,
    torch.special,
    torch.linalg,
    torch.fft,
)

# family, canonical name, other names, parameters (functional form), parameters elsewhere if other
_ROWS: tuple[tuple[Family, str, str, str, str], ...] = (
    (Family.RECTIFIER, "relu", "", "input inplace", ""),
    (Family.RECTIFIER, "relu6", "", "input inplace", ""),
    (Family.RECTIFIER, "leaky_relu", "", "input negative_slope inplace", ""),
    (Family.RECTIFIER, "prelu", "", "input weight", ""),
    (Family.RECTIFIER, "elu", "", "input alpha inplace", "input alpha"),
    (Family.RECTIFIER, "selu", "", "input inplace", ""),
    (Family.RECTIFIER, "celu", "", "input alpha inplace", ""),
    (Family.RECTIFIER, "threshold", "_threshold", "input threshold value inplace", ""),
    (Family.RECTIFIER, "rrelu", "", "input lower upper training inplace", ""),
    (Family.RECTIFIER, "hardswish", "", "input inplace", ""),
    (Family.RECTIFIER, "softplus", "", "input beta threshold", ""),
    (Family.RECTIFIER, "gelu", "", "input approximate", ""),
    (Family.RECTIFIER, "silu", "", "input inplace", ""),
    (Family.RECTIFIER, "mish", "", "input inplace", ""),
    (Family.SQUASHING, "sigmoid", "expit", "input", ""),
    (Family.SQUASHING, "tanh", "", "input", ""),
    (Family.SQUASHING, "hardsigmoid", "", "input inplace", ""),
    (Family.SQUASHING, "hardtanh", "", "input min_val max_val inplace", ""),
    (Family.SQUASHING, "clamp", "clip", "input min max", ""),
    (Family.SQUASHING, "clamp_min", "", "input min", ""),
    (Family.SQUASHING, "clamp_max", "", "input max", ""),
    (Family.SQUASHING, "softsign", "", "input", ""),
    (Family.SQUASHING, "logsigmoid", "log_sigmoid", "input", ""),
    (Family.SQUASHING, "tanhshrink", "", "input", ""),
    (Family.SQUASHING, "hardshrink", "", "input lambd", ""),
    (Family.SQUASHING, "softshrink", "", "input lambd", ""),
    (Family.ELEMENTWISE, "pow", "__pow__ __ipow__", "input exponent", ""),
    (Family.ELEMENTWISE, "nan_to_num", "", "input nan posinf neginf", ""),
    (Family.ELEMENTWISE, "round", "", "input", ""),
    (Family.PRODUCT, "mul", "multiply __mul__ __rmul__ __imul__", "input other", ""),
    (
        Family.QUOTIENT,
        "div",
        "divide true_divide __truediv__ __itruediv__ __div__ __idiv__",
        "input other",
        "",
    ),
    (Family.BILINEAR, "matmul", "__matmul__ __imatmul__", "input other", ""),
    (Family.BILINEAR, "mm", "", "input mat2", ""),
    (Family.BILINEAR, "bmm", "", "input mat2", ""),
    (Family.BILINEAR, "mv", "", "input vec", ""),
    (Family.BILINEAR, "dot", "vdot", "input tensor", ""),
    (Family.BILINEAR, "inner", "", "input other", ""),
    (Family.BILINEAR, "outer", "ger", "input vec2", ""),
    (Family.BILINEAR, "kron", "", "input other", ""),
    (Family.BILINEAR, "tensordot", "", "a b dims", ""),
    (Family.BILINEAR, "bilinear", "", "input1 input2 weight bias", ""),
    (Family.BILINEAR, "einsum", "", "equation *operands", ""),
    (Family.WEIGHTED, "linear", "", "input weight bias", ""),
    (Family.SELECT, "where", "", "condition input other", ""),
    (Family.SELECT, "masked_fill", "", "input mask value", ""),
    (Family.SELECT, "__setitem__", "", "input index value", ""),
    (Family.SOFTMAX, "softmax", "", "input dim _stacklevel dtype", "input dim dtype"),
    (Family.SOFTMAX, "log_softmax", "", "input dim _stacklevel dtype", "input dim dtype"),
    (Family.SOFTMAX, "logsumexp", "", "input dim keepdim", ""),
    (
        Family.NORM,
        "batch_norm",
        "",
        "input running_mean running_var weight bias training momentum eps",
        "input weight bias running_mean running_var training momentum eps cudnn_enabled",
    ),
    (
        Family.NORM,
        "instance_norm",
        "",
        "input running_mean running_var weight bias use_input_stats momentum eps",
        "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled",
    ),
    (Family.NORM, "group_norm", "", "input num_groups weight bias eps cudnn_enabled", ""),
    (Family.NORM, "layer_norm", "", "input normalized_shape weight bias eps cudnn_enable", ""),
    (Family.NORM, "rms_norm", "", "input normalized_shape weight eps", ""),
    (Family.NORM, "var", "", "input dim unbiased keepdim correction", ""),
    (Family.MAXIMUM, "amax", "", "input dim keepdim", ""),
    (Family.MAXIMUM, "amin", "", "input dim keepdim", ""),
    (Family.MAXIMUM, "max", "", "input dim keepdim", ""),
    (Family.MAXIMUM, "min", "", "input dim keepdim", ""),
    (Family.COMPOSITE, "maximum", "fmax", "input other", ""),
    (Family.COMPOSITE, "minimum", "fmin", "input other", ""),
    (Family.COMPOSITE, "std", "", "input dim unbiased keepdim correction", ""),
    (Family.COMPOSITE, "var_mean", "", "input dim unbiased keepdim correction", ""),
    (Family.COMPOSITE, "std_mean", "", "input dim unbiased keepdim correction", ""),
    (Family.COMPOSITE, "norm", "", "input p dim keepdim dtype", ""),
    (Family.COMPOSITE, "vector_norm", "linalg_vector_norm", "input ord dim keepdim", ""),
    (Family.COMPOSITE, "glu", "", "input dim", ""),
    (Family.COMPOSITE, "addcmul", "", "input tensor1 tensor2 value", ""),
    (Family.COMPOSITE, "addcdiv", "", "input tensor1 tensor2 value", ""),
    (Family.COMPOSITE, "lerp", "", "input end weight", ""),
    (Family.COMPOSITE, "addmm", "", "input mat1 mat2 beta alpha", ""),
    (Family.COMPOSITE, "addmv", "", "input mat vec beta alpha", ""),
    (Family.COMPOSITE, "baddbmm", "", "input batch1 batch2 beta alpha", ""),
    (Family.COMPOSITE, "addbmm", "", "input batch1 batch2 beta alpha", ""),
    (
        Family.ATTENTION,
        "scaled_dot_product_attention",
        "",
        "query key value attn_mask dropout_p is_causal scale enable_gqa",
        "",
    ),
)

_ELEMENTWISE = (
    "exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square abs absolute reciprocal erf erfc "
    "sin cos tan asin acos atan sinh cosh asinh acosh atanh arcsin arccos arctan arcsinh "
    "arccosh arctanh sinc i0 lgamma digamma logit erfinv ceil floor trunc fix frac sign sgn "
    "__abs__ deg2rad rad2deg"
)

_LINEAR = (
    "add sub subtract rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ neg negative "
    "__neg__ positive __pos__ sum mean nansum nanmean sum_to_size cat concat concatenate "
    "stack hstack vstack dstack column_stack row_stack block_diag reshape view view_as "
    "reshape_as flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis "
    "t adjoint squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors repeat "
    "repeat_interleave tile roll flip fliplr flipud rot90 clone alias contiguous to type "
    "type_as float double half bfloat16 cuda cpu select narrow narrow_copy split "
    "split_with_sizes tensor_split hsplit vsplit dsplit chunk unsafe_chunk unsafe_split "
    "unbind __getitem__ index_select gather take take_along_dim masked_select masked_scatter "
    "scatter scatter_add index_add index_copy index_fill index_put slice_scatter "
    "select_scatter diagonal_scatter as_strided diagonal diag diag_embed tril triu trace "
    "cumsum diff unfold fold pad constant_pad_nd pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle real imag view_as_real view_as_complex conj "
    "conj_physical resolve_conj resolve_neg atleast_1d atleast_2d atleast_3d meshgrid copy "
    "fill zero detach requires_grad to_dense fft ifft fft2 ifft2 fftn ifftn rfft irfft rfft2 "
    "irfft2 rfftn irfftn fftshift ifftshift set_ resize_as"
)
_LINEAR_IN_FIRST = (
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d interpolate upsample upsample_nearest upsample_bilinear grid_sample "
    "grid_sampler affine_grid embedding"
)
_DROPOUT = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
_CONVOLUTIONS = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d _convolution "
    "convolution"
)
_MAX_POOLS = (
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
)
_RECURRENT = "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
_PYTHON_BODIES = (
    "multi_head_attention_forward normalize local_response_norm lp_pool1d lp_pool2d lp_pool3d "
    "softmin"
)
_GETTERS = "T mT H mH real imag"


def describe(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    """The call of a known function, or None for one that is not in the table.

    Args:
        function: As received by a ``TorchFunctionMode``; matched by object, never by name.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    operation = _TABLE.get(function)
    if operation is None:
        return None
    if operation.name in ("max", "min") and _of_two(args, kwargs):
        operation = _TABLE[torch.maximum if operation.name == "max" else torch.minimum]
    return bind(operation, args, kwargs)


def _of_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``max`` or ``min`` compares two tensors."""
    return "other" in kwargs or (len(args) > 1 and isinstance(args[1], Tensor))


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch whose body runs instead of dispatching to the mode again.

    The copy shares code and closure with the original; only its own view of the names
    ``has_torch_function*`` differs, so nothing outside is changed.
    """
    code: Any = function
    names = [name for name in code.__globals__ if name.startswith("has_torch_function")]
    scope = {**code.__globals__, **dict.fromkeys(names, _never)}
    kind: Any = type(_never)
    copy = kind(code.__code__, scope, code.__name__, code.__defaults__, code.__closure__)
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy  # type: ignore[no-any-return]


def _never(*_: Any) -> bool:
    return False


def _build() -> dict[Callable[..., Any], Operation]:
    table: dict[Callable[..., Any], Operation] = {}
    for family, name, others, functional, elsewhere in _ROWS:
        _enter(table, family, name, others, functional, elsewhere or functional)
    for name in _ELEMENTWISE.split():
        _enter(table, Family.ELEMENTWISE, name, "", "input", "input")
    for name in _CONVOLUTIONS.split():
        _enter(table, Family.WEIGHTED, name, "", "input weight bias", "input weight bias")
    for name in _MAX_POOLS.split():
        _enter_pool(table, name)
    for names, family, parameters in (
        (_DROPOUT, Family.DROPOUT, "input p training inplace"),
        (_LINEAR, Family.LINEAR, "*operands"),
        (_LINEAR_IN_FIRST, Family.LINEAR_IN_FIRST, "input *others"),
        (_RECURRENT, Family.RECURRENT, "*operands"),
    ):
        for name in names.split():
            _enter(table, family, name, "", parameters, parameters)
    _enter_python_bodies(table)
    _enter_reversed(table)
    return table


def _enter(
    table: dict[Callable[..., Any], Operation],
    family: Family,
    name: str,
    others: str,
    functional: str,
    elsewhere: str,
) -> None:
    """Finds a name in every namespace of torch, with its in-place twin."""
    found = list(_found([name, *others.split()]))
    if not found:  # a version of torch that does not have it yet
        return
    pure = _PURE.get(name, found[0][0])
    for function, space, inplace in found:
        names = functional if space is F else elsewhere
        row = Operation(name, family, tuple(names.split()), pure, inplace)
        table.setdefault(function, row)


def _found(names: list[str]) -> Iterator[tuple[Callable[..., Any], Any, bool]]:
    for name in names:
        dunder = name.startswith("__")
        for space in _SPACES:
            if callable(function := getattr(space, name, None)):
                writes = (dunder and name in _WRITING) or (name.endswith("_") and not dunder)
                yield function, space, writes
            if not dunder and callable(function := getattr(space, f"{name}_", None)):
                yield function, space, True


def _enter_pool(table: dict[Callable[..., Any], Operation], name: str) -> None:
    names = "input output_size return_indices"
    if not name.startswith("adaptive"):
        names = "input kernel_size stride padding dilation ceil_mode return_indices"
    for spelled, indices in ((name, False), (f"{name}_with_indices", True)):
        for function, _, _ in _found([spelled]):
            pure = partial(_pool, getattr(F, name), indices)
            table.setdefault(function, Operation(name, Family.MAXIMUM, tuple(names.split()), pure))


def _pool(pool: Callable[..., Any], indices: bool, **arguments: Any) -> Any:
    return pool(**{**arguments, "return_indices": indices or arguments.get("return_indices")})


def _enter_python_bodies(table: dict[Callable[..., Any], Operation]) -> None:
    for name in _PYTHON_BODIES.split():
        function = getattr(F, name, None)
        if function is None:
            continue
        names = tuple(inspect.signature(function).parameters)
        family = Family.ATTENTION if "attention" in name else Family.COMPOSITE
        table[function] = Operation(name, family, names, function)


def _enter_reversed(table: dict[Callable[..., Any], Operation]) -> None:
    """Operators with the tensor on the right, and properties that are views."""
    swapped = ("input", "other")
    for name in ("__rdiv__", "__rtruediv__"):
        if function := getattr(Tensor, name, None):
            table[function] = Operation("rdiv", Family.QUOTIENT, swapped, _reversed_division)
    table[Tensor.__rpow__] = Operation("rpow", Family.ELEMENTWISE, swapped, _reversed_power)
    table[Tensor.__rmatmul__] = Operation("rmatmul", Family.BILINEAR, swapped, _reversed_matmul)
    where = Operation("where", Family.SELECT, ("input", "condition", "other"), torch.where)
    table[Tensor.where] = where
    for name in _GETTERS.split():
        getter = getattr(Tensor, name).__get__
        table[getter] = Operation(name, Family.LINEAR, ("*operands",), getter)


def _reversed_division(input: Tensor, other: Any) -> Any:
    return other / input


def _reversed_power(input: Tensor, other: Any) -> Any:
    return other**input


def _reversed_matmul(input: Tensor, other: Any) -> Any:
    return other @ input


def _einsum(equation: str, operands: tuple[Tensor, ...]) -> Tensor:
    return torch.einsum(equation, *operands)


def _set_item(input: Tensor, index: Any, value: Any) -> Tensor:
    changed = input.clone()
    changed[index] = value
    return changed


def _variance(
    input: Tensor,
    dim: Any = None,
    unbiased: Any = True,
    keepdim: Any = False,
    correction: Any = None,
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return torch.var(input, dim, correction=correction, keepdim=keepdim)


_WRITING = (
    "__setitem__",
    "__iadd__",
    "__isub__",
    "__imul__",
    "__itruediv__",
    "__idiv__",
    "__ipow__",
)
_PURE: dict[str, Callable[..., Any]] = {
    "einsum": _einsum,
    "__setitem__": _set_item,
    "var": _variance,
}
_TABLE = _build()
