"""Random weights, drawn by each module's own initializer, and running statistics that fit them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.engine.randomness import generator
from voxplain.models.model import Model
from voxplain.models.rest import random_state_kept

_SMALLEST_VARIANCE = 1e-3
"""Of a channel, relative to the mean over the channels of its norm."""


def reinitialize(network: nn.Module, paths: Iterable[str], seed: int) -> None:
    """Draws new weights for some modules, and resets their running statistics.

    Modules without an initializer of their own (embeddings, class tokens, scales of a block) get
    small normal weights, or ones and zeros where their names say scale and shift. So do parameters
    that the initializer of their module leaves as they are.

    Args:
        network: Changed in place: pass a copy.
        paths: Modules whose own parameters are drawn.
        seed: The same seed gives the same weights for the same module, whatever else is drawn.
    """
    for path in paths:
        module = network.get_submodule(path)
        with _seeded(_module_seed(seed, path)), _children_kept(module), torch.no_grad():
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            before = _own_values(module)
            if callable(reset):
                reset()
            for name, parameter in module.named_parameters(recurse=False):
                if name in before and _is_as_before(parameter, *before[name]):
                    _draw(name, parameter)
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds all random draws inside, and restores the generators on leaving."""
    with random_state_kept(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _children_kept(module: nn.Module) -> Iterator[None]:
    """Child modules keep their parameters, even if the initializer of their parent draws them."""
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    others = [parameter for parameter in module.parameters() if id(parameter) not in own]
    kept = [parameter.detach().clone() for parameter in others]
    yield
    with torch.no_grad():
        for parameter, value in zip(others, kept, strict=True):
            parameter.copy_(value)


def _own_values(module: nn.Module) -> dict[str, tuple[int, int, Tensor]]:
    """Identity, version and a copy of the parameters of a module itself, by name."""
    return {
        name: (id(parameter), parameter._version, parameter.detach().clone())
        for name, parameter in module.named_parameters(recurse=False)
    }


def _is_as_before(parameter: nn.Parameter, identity: int, version: int, values: Tensor) -> bool:
    """Whether nothing was written to a parameter; equal values count where something was."""
    same = (id(parameter), parameter._version) == (identity, version)
    return same and torch.equal(parameter, values)


def _draw(name: str, parameter: nn.Parameter) -> None:
    if parameter.ndim < 2 and any(word in name for word in ("bias", "shift", "beta")):
        nn.init.zeros_(parameter)
    elif parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1:
        nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    elif "scale" in name or "gamma" in name or name == "weight":
        nn.init.ones_(parameter)
    else:
        nn.init.trunc_normal_(parameter, std=0.02)


def _module_seed(seed: int, path: str) -> int:
    return generator("reinitialize", seed, path).initial_seed()


def recalibrate(model: Model, images: Tensor, paths: Iterable[str]) -> None:
    """Estimates the running statistics of batch norms again, so that activations stay finite.

    Norms that run before the first randomized module see the same values as before, and keep their
    statistics.

    Args:
        model: A copy; changed in place.
        images: ``(n, C, *spatial)`` of the size that one call sees.
        paths: The randomized modules.
    """
    norms = [module for module in model.network.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    watcher = _NormResetter(1 if len(images) == 1 else 2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(model.at_rest())
        for path in paths:
            module = model.network.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(watcher.on_randomized).remove)
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.callback(norm.register_forward_pre_hook(watcher.on_norm).remove)
        with torch.no_grad():
            for image, other in zip(images, images.roll(-1, dims=0), strict=True):
                watcher.changed = False
                model(torch.stack([image, other]))  # a norm in training takes no single value
        for norm, values in watcher.values_per_channel.items():
            _bound_variance(norm, values)


def _bound_variance(norm: _BatchNorm, values: int) -> None:
    """Keeps channels of almost no variance from being amplified, layer after layer."""
    variance = norm.running_var
    assert variance is not None
    usual = float(variance.mean()) if values > 1 else 0.0
    if usual:
        variance.clamp_(min=_SMALLEST_VARIANCE * usual)
    else:
        variance.fill_(1)


class _NormResetter:
    """Hooks that let the norms behind a randomized module estimate their statistics again.

    Args:
        images: How many different images a norm sees at once.

    Attributes:
        changed: Whether a randomized module has run for the present image.
        values_per_channel: How many different values per channel each reset norm sees at once.
    """

    def __init__(self, images: int) -> None:
        self.changed = False
        self.values_per_channel: dict[_BatchNorm, int] = {}
        self._images = images

    def on_randomized(self, module: nn.Module, *_: object) -> None:
        """Called before a randomized module runs."""
        self.changed = True

    def on_norm(self, norm: _BatchNorm, args: tuple[Tensor, ...]) -> None:
        """Called before a norm runs."""
        if self.changed and norm not in self.values_per_channel:
            self.values_per_channel[norm] = self._images * args[0][0, 0].numel()
            norm.momentum = None  # a plain mean over the images
            norm.reset_running_stats()
            norm.train()
