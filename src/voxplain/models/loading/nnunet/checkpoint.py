"""The checkpoint of one fold of nnU-Net v2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.loading.weights import read_weights

_NAMES = ("checkpoint_final.pth", "checkpoint_best.pth")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is needed of a checkpoint; optimizer and log are left aside.

    Attributes:
        file: Where it was read.
        weights: By their names in the network.
        configuration: The name of the configuration that was trained; None where it is not said.
        trainer: The name of the class that trained it.
        mirrored: Axes of the network along which nnU-Net mirrors copies in prediction.
    """

    file: Path
    weights: Mapping[str, Tensor]
    configuration: str | None
    trainer: str
    mirrored: tuple[int, ...]

    @classmethod
    def read(cls, fold: Path, name: str | None, *, trust: bool) -> Checkpoint:
        """The checkpoint of a fold; of no name, the final one, or else the best.

        Raises:
            ModelError: If there is none, or it cannot be read.
        """
        file = _file(fold, name)
        content = read_weights(file, trust=trust, allowed=_numpy_scalars())
        weights = content.get("network_weights") if isinstance(content, Mapping) else None
        if not isinstance(weights, Mapping) or not weights:
            raise ModelError(
                f"{fold.name}/{file.name} holds no network_weights, as checkpoints of nnU-Net v2 do"
            )
        started: Any = content.get("init_args") or {}
        return cls(
            file,
            {str(key).removeprefix("module."): value for key, value in weights.items()},
            started.get("configuration") if isinstance(started, Mapping) else None,
            str(content.get("trainer_name", "")),
            tuple(content.get("inference_allowed_mirroring_axes") or ()),
        )


def _file(fold: Path, name: str | None) -> Path:
    names = _NAMES if name is None else (name,)
    for file in (fold / each for each in names):
        if file.is_file():
            return file
    raise ModelError(f"{str(fold)!r} holds no {' or '.join(names)}")


def _numpy_scalars() -> list[Any]:
    """What the log of a training holds beside tensors: numbers of numpy, which run no code."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in (*"?bhilqBHILQefd",)}
    renamed = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*renamed, np.dtype, *kinds, torch.device]
