"""Copies of networks whose computed weights are replaced by plain ones, which can be drawn."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from voxplain.models.copies import copied
from voxplain.models.model import Model

_COMPUTING_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
"""Hooks of torch that compute a weight from other parameters before every forward."""


def with_plain_weights(model: Model) -> Model:
    """The model, or a copy in which what computes weights is replaced by its present result.

    Weight norm, spectral norm, pruning and parametrizations compute the weight that a forward uses
    from other parameters, and would write over one that is drawn. The output of the copy is that
    of the model.

    Args:
        model: Left as it was, and returned itself if all its weights are plain parameters.
    """
    if not any(map(_computes_weights, model.network.modules())):
        return model
    plain = copied(model)
    with plain.at_rest():  # spectral norm would take another step in training mode
        for module in list(plain.network.modules()):
            _make_plain(module)
    return plain


def _computes_weights(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module) or bool(_computing_hooks(module))


def _computing_hooks(module: nn.Module) -> dict[int, Any]:
    hooks = module._forward_pre_hooks.items()
    return {key: hook for key, hook in hooks if isinstance(hook, _COMPUTING_HOOKS)}


def _make_plain(module: nn.Module) -> None:
    for key, hook in _computing_hooks(module).items():
        hook.remove(module)
        del module._forward_pre_hooks[key]
    if parametrize.is_parametrized(module):
        _remove_parametrizations(module)


def _remove_parametrizations(module: nn.Module) -> None:
    """Registers the present values of parametrized tensors in their place.

    The function of torch changes the class of the module, which the copy shares with the original.
    """
    parametrizations: Any = module.parametrizations
    values = {
        name: (getattr(module, name).detach().clone(), bool(list(of.parameters(recurse=False))))
        for name, of in parametrizations.items()
    }
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, (value, is_parameter) in values.items():
        if is_parameter:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)
