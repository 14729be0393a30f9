"""The outputs of a network of nnU-Net v2: labels, or regions that may lie in each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxplain.errors import ModelError


@dataclass(frozen=True)
class Labels:
    """The output channels.

    Attributes:
        names: One for each channel.
        has_regions: Whether each channel is a region of its own, under sigmoid.
    """

    names: tuple[str, ...]
    has_regions: bool

    @classmethod
    def of(cls, dataset: Mapping[str, Any]) -> Labels:
        """The channels that follow from a ``dataset.json``.

        Raises:
            ModelError: If its labels are not those of nnU-Net v2.
        """
        stated = dataset.get("labels")
        if not isinstance(stated, Mapping) or "background" not in stated:
            raise ModelError(
                "dataset.json: labels name no background, which nnU-Net v2 does, as in "
                '{"background": 0, "tumor": 1}; other versions are not supported'
            )
        values = {str(name): _values(name, value) for name, value in stated.items()}
        values.pop("ignore", None)
        if any(len(labels) > 1 for labels in values.values()):
            return cls(tuple(name for name, labels in values.items() if {*labels} != {0}), True)
        by_label = sorted((labels[0], name) for name, labels in values.items())
        if [label for label, _ in by_label] != list(range(len(by_label))):
            found = [label for label, _ in by_label]
            raise ModelError(f"dataset.json: labels are {found}, and not 0, 1, 2 and so on")
        return cls(tuple(name for _, name in by_label), False)


def _values(name: object, value: Any) -> tuple[int, ...]:
    listed = value if isinstance(value, (list, tuple)) else [value]
    try:
        return tuple(int(label) for label in listed) or (0,)
    except (TypeError, ValueError):
        raise ModelError(f"dataset.json: the label of {name!r} is no whole number") from None
