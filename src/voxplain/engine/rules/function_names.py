"""The names of torch's functions by family: data that ``table`` resolves to function objects."""

from __future__ import annotations

from voxplain.engine.rules.calls import Family

# family, canonical name, other names, parameters (functional form), parameters elsewhere if other
ROWS: tuple[tuple[Family, str, str, str, str], ...] = (
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
