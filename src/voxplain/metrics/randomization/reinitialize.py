"""New weights, as a network gets them before training: by each module's own initializer."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.model import Model


def copied(model: Model) -> Model:
    """The same model around a copy of its network; the trained one is never touched."""
    return Model(
        copy.deepcopy(model.network),
        head=model.head,
        window=model.window,
        precision=model.precision,
        name=model.name,
        classes=model.classes,
    )


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
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_seed(seed, path))
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                _shake(module)
            else:
                for name, parameter in module.named_parameters(recurse=False):
                    _draw(name, parameter)
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()


def _shake(module: nn.Module) -> None:
    """Norms start at ones and zeros: which of their channels matters is noise, like all else."""
    if isinstance(module, (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)):
        return
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.numel() > 1 and float(parameter.std()) == 0 and "bias" not in name:
            _draw(name, parameter)


def _draw(name: str, parameter: nn.Parameter) -> None:
    if "bias" in name or "shift" in name or "beta" in name:
        nn.init.zeros_(parameter)
    elif parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1:
        nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    elif "scale" in name or "gamma" in name or name == "weight":
        nn.init.ones_(parameter)
    else:
        nn.init.trunc_normal_(parameter, std=0.02)


def _seed(seed: int, path: str) -> int:
    from voxplain.attribution.randomness import generator

    return generator("reinitialize", seed, path).initial_seed()


def recalibrate(model: Model, images: Tensor) -> None:
    """Estimates the running statistics of batch norms anew, so that activations stay finite.

    Args:
        model: A copy; changed in place.
        images: ``(n, C, *spatial)`` of the size that one call sees.
    """
    norms = [part for part in model.network.modules() if isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(model.at_rest())
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            norm.momentum = None  # a plain mean over the images
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            for image in images:
                pair = torch.stack([image, image])  # one image of one voxel has no variance
                model(pair)
        for norm in norms:
            norm.eval()
