"""New weights, as a network gets them before training: by each module's own initializer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.models.model import Model
from voxplain.models.rest import random_state_kept

_LEAST_SPREAD = 1e-3
"""Of a channel, relative to the mean over the channels of its norm."""


def reinitialize(network: nn.Module, paths: Iterable[str], seed: int) -> None:
    """Draws the parameters of some modules anew, with their running statistics reset.

    Modules without an initializer of their own (embeddings, class tokens, scales that hang on a
    block) get small normal weights, or ones and zeros where their names say scale and shift.

    Args:
        network: Changed in place: pass a copy.
        paths: Modules whose own parameters are drawn.
        seed: The same seed gives the same weights for the same module, whatever else is drawn.
    """
    for path in paths:
        module = network.get_submodule(path)
        with _seeded(_seed(seed, path)), _others_kept(module), torch.no_grad():
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(reset):
                reset()
            else:
                for name, parameter in module.named_parameters(recurse=False):
                    _draw(name, parameter)
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws inside follow the seed; the generators are as before on leaving."""
    with random_state_kept(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _others_kept(module: nn.Module) -> Iterator[None]:
    """The modules inside keep their parameters, even if an initializer draws them too."""
    own = {id(part) for part in module.parameters(recurse=False)}
    others = [part for part in module.parameters() if id(part) not in own]
    kept = [part.detach().clone() for part in others]
    yield
    with torch.no_grad():
        for part, value in zip(others, kept, strict=True):
            part.copy_(value)


def _draw(name: str, parameter: nn.Parameter) -> None:
    if parameter.ndim < 2 and any(word in name for word in ("bias", "shift", "beta")):
        nn.init.zeros_(parameter)
    elif parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1:
        nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    elif "scale" in name or "gamma" in name or name == "weight":
        nn.init.ones_(parameter)
    else:
        nn.init.trunc_normal_(parameter, std=0.02)


def _seed(seed: int, path: str) -> int:
    from voxplain.engine.randomness import generator

    return generator("reinitialize", seed, path).initial_seed()


def recalibrate(model: Model, images: Tensor, paths: Iterable[str]) -> None:
    """Estimates running statistics of batch norms anew, so that activations stay finite.

    Norms that run before the first of the randomized modules see what they have always seen, and
    keep what they learned.

    Args:
        model: A copy; changed in place.
        images: ``(n, C, *spatial)`` of the size that one call sees.
        paths: The modules whose parameters are drawn anew.
    """
    norms = [part for part in model.network.modules() if isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    watch = _ActivationWatcher(1 if len(images) == 1 else 2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(model.at_rest())
        for path in paths:
            module = model.network.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(watch.randomized).remove)
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.callback(norm.register_forward_pre_hook(watch.norm).remove)
        with torch.no_grad():
            for image, other in zip(images, images.roll(-1, dims=0), strict=True):
                watch.changed = False
                model(torch.stack([image, other]))  # a norm in training takes no single value
        for norm, values in watch.fresh.items():
            _bounded(norm, values)


def _bounded(norm: _BatchNorm, values: int) -> None:
    """Keeps channels without a spread from being blown up, layer after layer."""
    spread = norm.running_var
    assert spread is not None
    usual = float(spread.mean()) if values > 1 else 0.0
    if usual:
        spread.clamp_(min=_LEAST_SPREAD * usual)
    else:
        spread.fill_(1)


class _ActivationWatcher:
    """Tells the norms behind a randomized module, as they run, to look at what they see.

    Args:
        images: How many different ones a norm sees at once.

    Attributes:
        changed: Whether a randomized module has run for the present image.
        fresh: The norms, and how many different values per channel they see at once.
    """

    def __init__(self, images: int) -> None:
        self.changed = False
        self.fresh: dict[_BatchNorm, int] = {}
        self._images = images

    def randomized(self, module: nn.Module, *_: object) -> None:
        """A randomized module starts."""
        self.changed = True

    def norm(self, norm: _BatchNorm, args: tuple[Tensor, ...]) -> None:
        """A norm starts."""
        if self.changed and norm not in self.fresh:
            self.fresh[norm] = self._images * args[0][0, 0].numel()
            norm.momentum = None  # a plain mean over the images
            norm.reset_running_stats()
            norm.train()
