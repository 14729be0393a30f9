"""Loading of weights into a network, whatever wrappers their checkpoint has."""

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
    """Weights under one reading of their names.

    Attributes:
        tensors: By their names in the network.
        prefix: Removed from the names in the file.
        ignored: Names in the file without the prefix.
    """

    tensors: dict[str, Tensor]
    prefix: str
    ignored: tuple[str, ...]

    def score(self, expected: Collection[str]) -> tuple[int, int]:
        """Number of names that fit; then, to break ties, minus the number of those that do not."""
        fitting = sum(name in expected for name in self.tensors)
        return fitting, fitting - len(self.tensors) - len(self.ignored)


def load_weights(
    network: nn.Module, checkpoint: Any, origin: str, prefix: str | None = None
) -> None:
    """Copies weights into a network; every name and shape must fit.

    The tensors may be nested in a checkpoint (``state_dict``, ``model``, ``network_weights`` ...),
    and wrappers may have put a prefix before their names (``module.``, ``model.``, ``net.``,
    ``_orig_mod.``): the reading under which most names fit is taken.

    Args:
        network: Filled in place.
        checkpoint: The content of the file.
        origin: Name of the file, for messages.
        prefix: Prefix of the names in the file; determined from the names if None.

    Raises:
        ModelError: If weights are missing, not expected, or of another shape; with their number and
            the first names.
    """
    expected = network.state_dict()
    names = list(expected)
    fits = [fit for tensors in _containers(checkpoint) for fit in _readings(tensors, names, prefix)]
    if not fits:
        raise ModelError(f"weights {origin} hold {_described(checkpoint)}, no tensors by name")
    best = max(fits, key=lambda fit: fit.score(expected))
    problems = _problems(best.tensors, expected)
    if problems:
        raise ModelError(f"weights {origin} do not fit the network: {'; '.join(problems)}")
    _warn(best, origin)
    network.load_state_dict(best.tensors, strict=False)


def _containers(checkpoint: Any, depth: int = 3) -> Iterator[Tensors]:
    """The mappings of tensors in a checkpoint, outermost first."""
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
    """The tensors under every prefix with which some names fit."""
    if prefix is not None:
        yield _without(tensors, prefix)
        return
    unwrapped = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    examples = expected[:1] + expected[-1:]
    for start in _prefixes(unwrapped, examples):
        yield _without(unwrapped, start)
    for start in _prefixes(examples, unwrapped) - {""}:
        yield _WeightFit({start + name: tensor for name, tensor in unwrapped.items()}, "", ())


def _prefixes(longer: Collection[str], shorter: Collection[str]) -> set[str]:
    """The prefixes, with their dot, of longer names that end with a shorter one."""
    pairs = ((name, end) for name in longer for end in shorter if name.endswith("." + end))
    return {"", *(name.removesuffix(end) for name, end in pairs)}


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _without(tensors: Tensors, prefix: str) -> _WeightFit:
    with_prefix = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    ignored = tuple(name for name in tensors if not name.startswith(prefix))
    return _WeightFit(with_prefix, prefix, ignored)


def _problems(tensors: Tensors, expected: Mapping[str, Any]) -> list[str]:
    # Old checkpoints lack the counts of batch norms, which torch adds.
    missing = [
        name
        for name in expected
        if name not in tensors and not name.endswith(("num_batches_tracked", "_extra_state"))
    ]
    unexpected = [name for name in tensors if name not in expected]
    other_shape = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor) and name in tensors and tensors[name].shape != value.shape
    ]
    problems = {
        "missing": missing, "not expected": unexpected, "of another shape": other_shape
    }  # fmt: skip
    return [f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names]


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _warn(fit: _WeightFit, origin: str) -> None:
    if fit.ignored:
        names = _first(list(fit.ignored))
        text = f"{len(fit.ignored)} tensors outside {fit.prefix!r} left aside ({names})"
        warnings.warn(f"weights {origin}: {text}", VoxplainWarning, stacklevel=4)
    not_finite = [
        name
        for name, tensor in fit.tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if not_finite:
        names = _first(not_finite)
        text = f"weights {origin}: {len(not_finite)} tensors hold NaN or infinity ({names})"
        warnings.warn(text, VoxplainWarning, stacklevel=4)


def _described(checkpoint: Any) -> str:
    if isinstance(checkpoint, Mapping):
        return f"a dict with {_first([repr(key) for key in checkpoint]) or 'nothing in it'}"
    return f"a {type(checkpoint).__name__}"
