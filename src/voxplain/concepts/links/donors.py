"""What replaces the values of units: those of another case, the mean of the channel, or zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.models.model import Model

ReplacedBy = Literal["resample", "channel_mean", "zero"]
"""``resample`` takes the activations of another case; ``zero`` lies outside of what layers after a
normalization ever see, and is here for comparison."""


class Donors:
    """Replacements for the activations of every case, drawn once and the same for all effects.

    Args:
        model: The network.
        cohort: The cases, of which each is the donor of another one.
        taps: The layers.
        replaced_by: What values become.
        seed: Of the draw of donors.

    Raises:
        ConfigError: If there is no other case to take activations from.
    """

    def __init__(
        self, model: Model, cohort: Cohort, taps: Sequence[Tap], replaced_by: ReplacedBy, seed: int
    ) -> None:
        self._model, self._cohort, self._taps = model, cohort, tuple(dict.fromkeys(taps))
        self._kind, self._seed = replaced_by, seed
        self._means: dict[Tap, Tensor] = {}
        if replaced_by == "resample" and len(cohort) < 2:
            raise ConfigError(
                "values are resampled from another case, and the cohort has only one; add cases or "
                "take channel_mean"
            )
        if replaced_by == "channel_mean":
            self._means = self._channel_means()

    def of(self, case: CohortCase, context: Context, draw: int = 0) -> dict[Tap, Tensor]:
        """The values that replace those of a case, ``(K, *cells)`` by layer.

        Args:
            case: The case.
            context: The network and its image.
            draw: Number of the draw, for several donors of one case.
        """
        if self._kind == "resample":
            other = self._cohort[self.donor(case.id, draw)]
            return _activations(self._model, other, self._taps)
        if self._kind == "channel_mean":
            return {tap: _spread(mean, self._cells(context, tap)) for tap, mean in self._items()}
        return {
            tap: context.inputs.new_zeros(context.layers.channels(tap), *self._cells(context, tap))
            for tap in self._taps
        }

    def donor(self, case: str, draw: int = 0) -> str:
        """The case that another one gets its values from: of another patient where there is one."""
        patients = dict(zip(self._cohort.ids, self._cohort.patients, strict=True))
        others = [each for each in patients if each != case]
        strangers = [each for each in others if patients[each] != patients[case]] or others
        order = torch.randperm(len(strangers), generator=generator(self._seed, "donor", case))
        return strangers[int(order[draw % len(strangers)])]

    def _items(self) -> Sequence[tuple[Tap, Tensor]]:
        return list(self._means.items())

    def _cells(self, context: Context, tap: Tap) -> tuple[int, ...]:
        return context.layers.geometry(tap).shape

    def _channel_means(self) -> dict[Tap, Tensor]:
        """Mean of every channel over all cells of all cases."""
        sums: dict[Tap, Tensor] = {}
        cells: dict[Tap, int] = {}
        for case in self._cohort:
            for tap, value in _activations(self._model, case, self._taps).items():
                total = value.flatten(1).sum(dim=1, dtype=torch.float64)
                sums[tap] = sums[tap] + total if tap in sums else total
                cells[tap] = cells.get(tap, 0) + value[0].numel()
        return {tap: (total / cells[tap]).float() for tap, total in sums.items()}


def _activations(model: Model, case: CohortCase, taps: Sequence[Tap]) -> dict[Tap, Tensor]:
    seen: Mapping[Tap, Tensor] = observe(Context.open(model, case.image), taps).values
    return dict(seen)


def _spread(values: Tensor, cells: Sequence[int]) -> Tensor:
    """A value per channel on all cells."""
    return values.view(-1, *(1,) * len(cells)).expand(-1, *cells).contiguous()
