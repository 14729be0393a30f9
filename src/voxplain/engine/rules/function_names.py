"""The names of torch's functions by kind: data from which the table of functions is built."""

from __future__ import annotations

from voxplain.engine.rules.calls import OperationKind

# kind, canonical name, other names, parameters (functional form), parameters elsewhere if other
ROWS: tuple[tuple[OperationKind, str, str, str, str], ...] = (
    (OperationKind.RECTIFIER, "relu", "", "input inplace", ""),
    (OperationKind.RECTIFIER, "relu6", "", "input inplace", ""),
    (OperationKind.RECTIFIER, "leaky_relu", "", "input negative_slope inplace", ""),
    (OperationKind.RECTIFIER, "prelu", "", "input weight", ""),
    (OperationKind.RECTIFIER, "elu", "", "input alpha inplace", "input alpha"),
    (OperationKind.RECTIFIER, "selu", "", "input inplace", ""),
    (OperationKind.RECTIFIER, "celu", "", "input alpha inplace", ""),
    (OperationKind.RECTIFIER, "threshold", "_threshold", "input threshold value inplace", ""),
    (OperationKind.RECTIFIER, "rrelu", "", "input lower upper training inplace", ""),
    (OperationKind.RECTIFIER, "hardswish", "", "input inplace", ""),
    (OperationKind.RECTIFIER, "softplus", "", "input beta threshold", ""),
    (OperationKind.RECTIFIER, "gelu", "", "input approximate", ""),
    (OperationKind.RECTIFIER, "silu", "", "input inplace", ""),
    (OperationKind.RECTIFIER, "mish", "", "input inplace", ""),
    (OperationKind.SQUASHING, "sigmoid", "expit", "input", ""),
    (OperationKind.SQUASHING, "tanh", "", "input", ""),
    (OperationKind.SQUASHING, "hardsigmoid", "", "input inplace", ""),
    (OperationKind.SQUASHING, "hardtanh", "", "input min_val max_val inplace", ""),
    (OperationKind.SQUASHING, "clamp", "clip", "input min max", ""),
    (OperationKind.SQUASHING, "clamp_min", "", "input min", ""),
    (OperationKind.SQUASHING, "clamp_max", "", "input max", ""),
    (OperationKind.SQUASHING, "softsign", "", "input", ""),
    (OperationKind.SQUASHING, "logsigmoid", "log_sigmoid", "input", ""),
    (OperationKind.SQUASHING, "tanhshrink", "", "input", ""),
    (OperationKind.SQUASHING, "hardshrink", "", "input lambd", ""),
    (OperationKind.SQUASHING, "softshrink", "", "input lambd", ""),
    (OperationKind.ELEMENTWISE, "pow", "__pow__ __ipow__", "input exponent", ""),
    (OperationKind.ELEMENTWISE, "nan_to_num", "", "input nan posinf neginf", ""),
    (OperationKind.ELEMENTWISE, "round", "", "input", ""),
    (OperationKind.PRODUCT, "mul", "multiply __mul__ __rmul__ __imul__", "input other", ""),
    (
        OperationKind.QUOTIENT,
        "div",
        "divide true_divide __truediv__ __itruediv__ __div__ __idiv__",
        "input other",
        "",
    ),
    (OperationKind.BILINEAR, "matmul", "__matmul__ __imatmul__", "input other", ""),
    (OperationKind.BILINEAR, "mm", "", "input mat2", ""),
    (OperationKind.BILINEAR, "bmm", "", "input mat2", ""),
    (OperationKind.BILINEAR, "mv", "", "input vec", ""),
    (OperationKind.BILINEAR, "dot", "vdot", "input tensor", ""),
    (OperationKind.BILINEAR, "inner", "", "input other", ""),
    (OperationKind.BILINEAR, "outer", "ger", "input vec2", ""),
    (OperationKind.BILINEAR, "kron", "", "input other", ""),
    (OperationKind.BILINEAR, "tensordot", "", "a b dims", ""),
    (OperationKind.BILINEAR, "bilinear", "", "input1 input2 weight bias", ""),
    (OperationKind.BILINEAR, "einsum", "", "equation *operands", ""),
    (OperationKind.WEIGHTED, "linear", "", "input weight bias", ""),
    (OperationKind.SELECT, "where", "", "condition input other", ""),
    (OperationKind.SELECT, "masked_fill", "", "input mask value", ""),
    (OperationKind.SELECT, "__setitem__", "", "input index value", ""),
    (OperationKind.SOFTMAX, "softmax", "", "input dim _stacklevel dtype", "input dim dtype"),
    (OperationKind.SOFTMAX, "log_softmax", "", "input dim _stacklevel dtype", "input dim dtype"),
    (OperationKind.SOFTMAX, "logsumexp", "", "input dim keepdim", ""),
    (
        OperationKind.NORM,
        "batch_norm",
        "",
        "input running_mean running_var weight bias training momentum eps",
        "input weight bias running_mean running_var training momentum eps cudnn_enabled",
    ),
    (
        OperationKind.NORM,
        "instance_norm",
        "",
        "input running_mean running_var weight bias use_input_stats momentum eps",
        "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled",
    ),
    (OperationKind.NORM, "group_norm", "", "input num_groups weight bias eps cudnn_enabled", ""),
    (
        OperationKind.NORM,
        "layer_norm",
        "",
        "input normalized_shape weight bias eps cudnn_enable",
        "",
    ),
    (OperationKind.NORM, "rms_norm", "", "input normalized_shape weight eps", ""),
    (OperationKind.NORM, "var", "", "input dim unbiased keepdim correction", ""),
    (OperationKind.MAXIMUM, "amax", "", "input dim keepdim", ""),
    (OperationKind.MAXIMUM, "amin", "", "input dim keepdim", ""),
    (OperationKind.MAXIMUM, "max", "", "input dim keepdim", ""),
    (OperationKind.MAXIMUM, "min", "", "input dim keepdim", ""),
    (OperationKind.COMPOSITE, "maximum", "fmax", "input other", ""),
    (OperationKind.COMPOSITE, "minimum", "fmin", "input other", ""),
    (OperationKind.COMPOSITE, "std", "", "input dim unbiased keepdim correction", ""),
    (OperationKind.COMPOSITE, "var_mean", "", "input dim unbiased keepdim correction", ""),
    (OperationKind.COMPOSITE, "std_mean", "", "input dim unbiased keepdim correction", ""),
    (OperationKind.COMPOSITE, "norm", "", "input p dim keepdim dtype", ""),
    (OperationKind.COMPOSITE, "vector_norm", "linalg_vector_norm", "input ord dim keepdim", ""),
    (OperationKind.COMPOSITE, "glu", "", "input dim", ""),
    (OperationKind.COMPOSITE, "addcmul", "", "input tensor1 tensor2 value", ""),
    (OperationKind.COMPOSITE, "addcdiv", "", "input tensor1 tensor2 value", ""),
    (OperationKind.COMPOSITE, "lerp", "", "input end weight", ""),
    (OperationKind.COMPOSITE, "addmm", "", "input mat1 mat2 beta alpha", ""),
    (OperationKind.COMPOSITE, "addmv", "", "input mat vec beta alpha", ""),
    (OperationKind.COMPOSITE, "baddbmm", "", "input batch1 batch2 beta alpha", ""),
    (OperationKind.COMPOSITE, "addbmm", "", "input batch1 batch2 beta alpha", ""),
    (
        OperationKind.ATTENTION,
        "scaled_dot_product_attention",
        "",
        "query key value attn_mask dropout_p is_causal scale enable_gqa",
        "",
    ),
)

ELEMENTWISE = (
    "exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square abs absolute reciprocal erf erfc "
    "sin cos tan asin acos atan sinh cosh asinh acosh atanh arcsin arccos arctan arcsinh "
    "arccosh arctanh sinc i0 lgamma digamma logit erfinv ceil floor trunc fix frac sign sgn "
    "__abs__ deg2rad rad2deg"
)

LINEAR = (
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
LINEAR_IN_FIRST = (
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d interpolate upsample upsample_nearest upsample_bilinear grid_sample "
    "grid_sampler affine_grid embedding"
)
DROPOUT = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
CONVOLUTIONS = (
    ("conv1d conv2d conv3d", "input weight bias stride padding dilation groups"),
    (
        "conv_transpose1d conv_transpose2d conv_transpose3d",
        "input weight bias stride padding output_padding groups dilation",
    ),
    (
        "_convolution convolution",
        "input weight bias stride padding dilation transposed output_padding groups",
    ),
)
MAX_POOLS = (
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
)
RECURRENT = "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
PYTHON_BODIES = (
    "multi_head_attention_forward normalize local_response_norm lp_pool1d lp_pool2d lp_pool3d "
    "softmin"
)
GETTERS = "T mT H mH real imag"
