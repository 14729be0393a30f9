"""Clusters that a study can run on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SIZES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_ADDRESS = r"^((tcp|tls|ucx)://[^\s/]+|.+\.json)$"

LONGEST = 366 * 24 * 3600.0
"""Seconds; no task takes longer than a year."""

LEAST_MEMORY = 500_000_000
"""Bytes; a process that has loaded nothing holds almost as much."""


def seconds(value: Any) -> Any:
    """``90s``, ``10min`` or ``2h`` in seconds; numbers stay as they are.

    Raises:
        ValueError: If a text is none of these.
    """
    return _in_units(value, _TIMES, "a duration; write 90s, 10min or 2h")


def size(value: Any) -> Any:
    """``800MB`` or ``8GB`` in bytes; numbers stay as they are.

    Raises:
        ValueError: If a text is none of these.
    """
    number = _in_units(value, _SIZES, "a size; write 800MB or 8GB")
    return int(number) if isinstance(value, str) else number


def _in_units(value: Any, units: Mapping[str, float], wanted: str) -> Any:
    """The number that a text with a unit says; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value)
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match[2].lower() not in factors:
        raise ValueError(f"{value!r} is not {wanted}")
    return float(match[1]) * factors[match[2].lower()]


Duration = Annotated[
    Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)], BeforeValidator(seconds)
]
Size = Annotated[Annotated[int, Field(ge=LEAST_MEMORY, le=10**15)], BeforeValidator(size)]


class SlurmJobs(BaseModel):
    """The jobs of a SLURM cluster; each of them is one worker.

    Attributes:
        queue: The partition; the default one if None.
        time: How long a job may take; a worker ends by itself before that, and another job follows.
        memory: Of a job.
        gpus: Of a job.
        jobs: How many run side by side, at most.
        account: Who pays; the default one if None.
        directives: Further lines for ``#SBATCH``, such as ``--constraint=a100``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: str | None = None
    time: Duration = 3600.0
    memory: Size = 16_000_000_000
    gpus: int = Field(default=0, ge=0)
    jobs: int = Field(default=1, ge=1, le=10_000)
    account: str | None = None
    directives: tuple[str, ...] = ()


class DaskCluster(BaseModel):
    """A Dask cluster that is running; every one of its workers sees the files of the study.

    Attributes:
        dask: Address of the scheduler, such as ``tcp://10.0.0.1:8786``, or its scheduler file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dask: str = Field(pattern=_ADDRESS)


class SlurmCluster(BaseModel):
    """Dask workers that are started as jobs of SLURM for this run.

    Attributes:
        slurm: The jobs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slurm: SlurmJobs
