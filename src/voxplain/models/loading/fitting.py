"""Weights brought onto a network, whatever their checkpoint wraps around them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.errors import ModelError, VoxplainWarning

Tensors = Mapping[str, Tensor]
_WRAPPERS = ("_orig_mod.",)
_SHOWN = 3


@dataclass(frozen=True)
class _WeightFit:
    """Weights under the names of the network, and what was in the file beside them."""

    tensors: dict[str, Tensor]
    prefix: str
    aside: tuple[str, ...]

    def score(self, expected: Collection[str]) -> tuple[int, int]:
        """How many names fit, and (as a tie-break) how few do not."""
        fitting = sum(name in expected for name in self.tensors)
        return fitting, fitting - len(self.tensors) - len(self.aside)


def load_weights(
    network: nn.Module, checkpoint: Any, origin: str, prefix: str | None = None
) -> None:
    """Copies weights into a network; every name and shape must fit.

    The tensors may lie inside a checkpoint (``state_dict``, ``model``, ``network_weights`` ...),
    and their names may begin with what a wrapper has put before them (``module.``, ``model.``,
    ``net.``, ``_orig_mod.``): the reading under which most names fit is taken.

    Args:
        network: Filled in place.
        checkpoint: What the file holds.
        origin: Name of the file, for messages.
        prefix: What names begin with, if it is known.

    Raises:
        ModelError: With how many and the first names that are missing, not expected, or of
            another shape.
    """
    expected = network.state_dict()
    fits = [
        fit
        for tensors in _containers(checkpoint)
        for fit in _readings(tensors, list(expected), prefix)
    ]
    if not fits:
        raise ModelError(f"weights {origin} hold {_described(checkpoint)}, no tensors by name")
    best = max(fits, key=lambda fit: fit.score(expected))
    problems = _problems(best.tensors, expected)
    if problems:
        raise ModelError(f"weights {origin} do not fit the network: {'; '.join(problems)}")
    _remark(best, origin)
    network.load_state_dict(best.tensors, strict=False)


def _containers(checkpoint: Any, depth: int = 3) -> Iterator[Tensors]:
    """Every mapping of tensors in a checkpoint, outermost first."""
    if isinstance(checkpoint, nn.Module):
        checkpoint = checkpoint.state_dict()
    if not isinstance(checkpoint, Mapping) or depth == 0:
        return
    tensors = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors
    for value in checkpoint.values():
        yield from _containers(value, depth - 1)


def _readings(tensors: Tensors, expected: list[str], prefix: str | None) -> Iterator[_WeightFit]:
    """The tensors under every prefix that makes some names fit."""
    if prefix is not None:
        yield _without(tensors, prefix)
        return
    plain = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    known = expected[:1] + expected[-1:]
    for start in _starts(plain, known):
        yield _without(plain, start)
    for start in _starts(known, plain) - {""}:
        yield _WeightFit({start + name: tensor for name, tensor in plain.items()}, "", ())


def _starts(longer: Collection[str], shorter: Collection[str]) -> set[str]:
    """What stands before the dot where a longer name ends with a shorter one."""
    ends = ((name, end) for name in longer for end in shorter if name.endswith("." + end))
    return {"", *(name.removesuffix(end) for name, end in ends)}


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _without(tensors: Tensors, prefix: str) -> _WeightFit:
    begin = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return _WeightFit(begin, prefix, tuple(name for name in tensors if not name.startswith(prefix)))


def _problems(tensors: Tensors, expected: Mapping[str, Any]) -> list[str]:
    # Batch norms of old checkpoints do not count their batches; torch fills that in.
    missing = [
        name
        for name in expected
        if name not in tensors and not name.endswith(("num_batches_tracked", "_extra_state"))
    ]
    unexpected = [name for name in tensors if name not in expected]
    other = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor) and name in tensors and tensors[name].shape != value.shape
    ]
    found = (("missing", missing), ("not expected", unexpected), ("of another shape", other))
    return [f"{len(names)} {what} ({_first(names)})" for what, names in found if names]


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _remark(fit: _WeightFit, origin: str) -> None:
    if fit.aside:
        shown = _first(list(fit.aside))
        text = f"{len(fit.aside)} tensors outside {fit.prefix!r} left aside ({shown})"
        warnings.warn(f"weights {origin}: {text}", VoxplainWarning, stacklevel=4)
    bad = [
        name
        for name, tensor in fit.tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if bad:
        text = f"weights {origin}: {len(bad)} tensors hold NaN or infinity ({_first(bad)})"
        warnings.warn(text, VoxplainWarning, stacklevel=4)


def _described(checkpoint: Any) -> str:
    if isinstance(checkpoint, Mapping):
        return f"a dict with {_first([repr(key) for key in checkpoint]) or 'nothing in it'}"
    return f"a {type(checkpoint).__name__}"
