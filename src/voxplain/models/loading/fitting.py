"""Loading of weights into a network, whatever wrappers their checkpoint has."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.errors import ModelError, VoxplainWarning, nearest

Tensors = Mapping[str, Tensor]
_WRAPPERS = ("_orig_mod.",)
_SHOWN = 3


@dataclass(frozen=True)
class _WeightFit:
    """Weights under one reading of their names.

    Attributes:
        part: Where the tensors are in the checkpoint: names with slashes, empty for all of it.
        tensors: By their names in the network.
        prefix: Removed from the names in the file.
        ignored: Names in the file without the prefix.
    """

    part: str
    tensors: dict[str, Tensor]
    prefix: str
    ignored: tuple[str, ...]

    def score(self, expected: Collection[str]) -> tuple[int, int]:
        """Number of names that fit; then, to break ties, minus the number of those that do not."""
        fitting = sum(name in expected for name in self.tensors)
        return fitting, fitting - len(self.tensors) - len(self.ignored)

    def equals(self, other: _WeightFit) -> bool:
        """Whether both read the same values."""
        return self.tensors.keys() == other.tensors.keys() and all(
            tensor is other.tensors[name] or torch.equal(tensor, other.tensors[name])
            for name, tensor in self.tensors.items()
        )

    @property
    def in_words(self) -> str:
        """The settings that choose it."""
        settings = {"part": self.part, "prefix": self.prefix}
        chosen = [f"{name}: {value}" for name, value in settings.items() if value]
        return " and ".join(chosen) or "no prefix"


def load_weights(
    network: nn.Module,
    checkpoint: Any,
    origin: str,
    prefix: str | None = None,
    part: str | None = None,
) -> None:
    """Copies weights into a network; every name and shape must fit.

    The tensors may be nested in a checkpoint (``state_dict``, ``model``, ``network_weights`` ...),
    and wrappers may have put a prefix before their names (``module.``, ``model.``, ``net.``,
    ``_orig_mod.``): the reading under which most names fit is taken. Where several sets of weights
    fit, as those of a model and of its moving average, one has to be chosen.

    Args:
        network: Filled in place.
        checkpoint: The content of the file.
        origin: Name of the file, for messages.
        prefix: Prefix of the names in the file; determined from the names if None.
        part: Entry of the checkpoint that holds the tensors, with slashes where entries are inside
            each other; all of them are looked at if None.

    Raises:
        ModelError: If several sets of weights fit, or the part does not exist; if weights are
            missing, not expected, or of another shape; with their number and the first names.
    """
    expected = network.state_dict()
    names = list(expected)
    fits = [
        fit
        for where, tensors in _containers(_part_of(checkpoint, part, origin), part or "")
        for fit in _readings(where, tensors, names, prefix)
    ]
    if not fits:
        raise ModelError(f"weights {origin} hold {_described(checkpoint)}, no tensors by name")
    best = max(fits, key=lambda fit: fit.score(expected))
    problems = _problems(best.tensors, expected)
    if problems:
        raise ModelError(f"weights {origin} do not fit the network: {'; '.join(problems)}")
    _require_one(fits, best, expected, origin)
    _warn(best, origin)
    network.load_state_dict(best.tensors, strict=False)


def _part_of(checkpoint: Any, part: str | None, origin: str) -> Any:
    """The entry of a checkpoint that was chosen.

    Raises:
        ModelError: If there is none of this name.
    """
    for name in part.split("/") if part else ():
        entries = {str(key): value for key, value in _entries(checkpoint).items()}
        if name not in entries:
            raise ModelError(f"weights {origin} have no part {part!r}; {nearest(name, entries)}")
        checkpoint = entries[name]
    return checkpoint


def _require_one(
    fits: Sequence[_WeightFit], best: _WeightFit, expected: Mapping[str, Any], origin: str
) -> None:
    """Refuses a checkpoint that holds several sets of weights for the network.

    Raises:
        ModelError: With the settings that choose each of them.
    """
    sets = [best]
    for fit in fits:
        if not _problems(fit.tensors, expected) and not any(map(fit.equals, sets)):
            sets.append(fit)
    if len(sets) > 1:
        choices = "; ".join(fit.in_words for fit in sets)
        raise ModelError(
            f"weights {origin} hold {len(sets)} sets of weights that fit the network; choose one "
            f"in the entry of the model: {choices}"
        )


def _entries(checkpoint: Any) -> Mapping[Any, Any]:
    if isinstance(checkpoint, nn.Module):
        return checkpoint.state_dict()
    return checkpoint if isinstance(checkpoint, Mapping) else {}


def _containers(checkpoint: Any, where: str, depth: int = 3) -> Iterator[tuple[str, Tensors]]:
    """The mappings of tensors in a checkpoint and their names in it, outermost first."""
    entries = _entries(checkpoint)
    if depth == 0:
        return
    tensors = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for key, value in entries.items():
        yield from _containers(value, f"{where}/{key}" if where else str(key), depth - 1)


def _readings(
    part: str, tensors: Tensors, expected: list[str], prefix: str | None
) -> Iterator[_WeightFit]:
    """The tensors under every prefix with which some names fit, the shortest first."""
    if prefix is not None:
        yield _without(part, tensors, prefix)
        return
    unwrapped = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    examples = expected[:1] + expected[-1:]
    for start in _prefixes(unwrapped, examples):
        yield _without(part, unwrapped, start)
    for start in _prefixes(examples, unwrapped)[1:]:
        longer = {start + name: tensor for name, tensor in unwrapped.items()}
        yield _WeightFit(part, longer, "", ())


def _prefixes(longer: Collection[str], shorter: Collection[str]) -> list[str]:
    """The empty prefix, and those, with their dot, of longer names that end with a shorter one."""
    pairs = ((name, end) for name in longer for end in shorter if name.endswith("." + end))
    return sorted({"", *(name.removesuffix(end) for name, end in pairs)}, key=lambda p: (len(p), p))


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _without(part: str, tensors: Tensors, prefix: str) -> _WeightFit:
    with_prefix = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    ignored = tuple(name for name in tensors if not name.startswith(prefix))
    return _WeightFit(part, with_prefix, prefix, ignored)


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
