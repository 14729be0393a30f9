"""Stages: parts of a network that keep their input, and run again in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxplain.engine.tensors import tensors_in
from voxplain.models.hooks import lasting_attributes, replace_forward
from voxplain.models.rest import random_state, random_state_kept

Forward = Callable[..., Any]
Around = Callable[["Stage", Forward], Forward]
"""Makes of the computation of a stage the one that runs in its place."""


@dataclass(frozen=True)
class Stage:
    """A module, or some children of an ``nn.Sequential`` that follow one another.

    Attributes:
        path: Of the module.
        children: Numbers of the first child and of the one after the last; None for the module.
    """

    path: str
    children: tuple[int, int] | None = None


def is_chain(module: nn.Module) -> bool:
    """Whether a module does nothing but run its children one after the other."""
    own = "forward" in lasting_attributes(module)
    return type(module).forward is nn.Sequential.forward and not own


@contextlib.contextmanager
def staged(network: nn.Module, stages: Sequence[Stage], around: Around) -> Iterator[None]:
    """A block in which stages run in another way, in the calling thread.

    Args:
        network: As it was when the block is left.
        stages: None of them lies in another one.
        around: What runs in place of a stage.
    """
    chains: dict[str, list[Stage]] = {}
    with contextlib.ExitStack() as stack:
        for stage in stages:
            if stage.children is None:
                module = network.get_submodule(stage.path)
                replace_forward(stack, module, partial(around, stage))
            else:
                chains.setdefault(stage.path, []).append(stage)
        for path, of_chain in chains.items():
            module = network.get_submodule(path)
            links = _links([*module._modules.values()], of_chain, around)
            replace_forward(stack, module, partial(_instead, partial(_through, links)))
        yield


def _instead(forward: Forward, _: Forward) -> Forward:
    return forward


def _links(children: Sequence[Any], stages: Sequence[Stage], around: Around) -> list[Forward]:
    """What an ``nn.Sequential`` runs one after the other, its stages as one each."""
    links: list[Forward] = []
    done = 0
    for stage in sorted(stages, key=lambda each: each.children or (0, 0)):
        first, stop = stage.children or (0, 0)
        links += [*children[done:first], around(stage, partial(_through, children[first:stop]))]
        done = stop
    return [*links, *children[done:]]


def _through(functions: Sequence[Forward], value: Any) -> Any:
    for function in functions:
        value = function(value)
    return value


def recomputed(devices: Sequence[int] | None) -> Around:
    """Stages keep their inputs, and are computed again when the backward pass needs them.

    Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost.

    Args:
        devices: Indices of the CUDA devices on which random numbers may be drawn; None for a
            network that draws none.
    """

    def around(_: Stage, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            needed = any(tensor.requires_grad for tensor in tensors_in((args, kwargs)))
            if not (needed and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            function = forward if devices is None else _SameDraws(forward, devices)
            return checkpoint(
                function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
            )

        return run

    return around


class _SameDraws:
    """A function that draws the same random numbers every time.

    Args:
        function: What is called.
        devices: Indices of the CUDA devices on which numbers may be drawn.
    """

    def __init__(self, function: Forward, devices: Sequence[int]) -> None:
        self._function, self._devices = function, devices
        self._begin: Callable[[], None] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._begin is None:
            self._begin = random_state(self._devices)
            return self._function(*args, **kwargs)
        with random_state_kept(self._devices):
            self._begin()
            return self._function(*args, **kwargs)
