"""How a study is carried out: where its tasks run, and within which limits."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from voxplain.models.model import Offload
from voxplain.models.precision import Precision
from voxplain.study.config.clusters import LONGEST, DaskCluster, Size, SlurmCluster, seconds

MOST_WORKERS = 512

MAX_PASSES = 20_000
"""Above the default of every method, in 3-D too; at a tenth of a second each, half an hour."""


def _seconds(value: Any) -> Any:
    return None if isinstance(value, float) and value == math.inf else seconds(value)


def _count(value: Any) -> Any:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    is_count = isinstance(number, int) and not isinstance(number, bool)
    if number != "auto" and not (is_count and 0 <= number <= MOST_WORKERS):
        raise ValueError(f"{value!r} is no number of processes; write auto, or 0 to {MOST_WORKERS}")
    return number


class RunConfig(BaseModel):
    """How the study is carried out.

    Attributes:
        executor: Where tasks run: ``local`` is this machine; ``{dask: tcp://host:8786}`` a Dask
            cluster; ``{slurm: {queue: gpu, time: 4h, memory: 32GB, gpus: 1, jobs: 8}}`` starts one
            on SLURM. The run directory has to be at the same place on all machines.
        workers: Processes that do tasks side by side: ``auto`` takes one per device, or as many as
            cores and memory allow; 0 does everything in this process, which no limit can end and
            a debugger can follow. Results are the same for any number.
        threads: Of each worker. Another number rounds otherwise, so that it belongs to the result.
        device: Where networks run: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes the
            CUDA devices, or the CPU where there are none.
        timeout: The longest a task may take, such as ``10min``, a year at most; None for no limit.
            While a study is checked, one answer of a network may take as long, and 10 s at least.
        memory: The most that a worker process may hold, such as ``8GB``; None for no limit. What
            needs more is tried once again with half as many images at a time.
        precision: The numeric type of networks that name none of their own: ``float32``,
            ``float64``, ``tf32``, ``bfloat16`` or ``float16``; ``auto`` is float32 on a CPU and
            bfloat16 on a GPU. Lower ones than float32 are used only for those streams of passes,
            and those scores of metrics, in which a few passes agree with float32 (0.99); elsewhere
            float32 runs, and the map and the manifest say so with the agreement.
        offload: What is done with what a backward pass needs; each takes longer and changes no
            map. ``recompute`` runs parts of a network again instead of keeping what they computed,
            ``always`` keeps it in the memory of the CPU; ``auto`` does the first, and on a GPU then
            the second, where a single image does not fit; ``never`` does neither.
        seed: Seed of all random draws.
        max_passes: What one method may take for one image, and one metric for one map; what would
            take more is refused before anything starts.
        controls: Score control maps beside the maps: random, edges, intensity, center, and the
            reference where there is one.
        notify: A command that is run when the run ends, with a JSON summary on standard input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["local"] | DaskCluster | SlurmCluster = "local"
    workers: Annotated[Literal["auto"] | int, BeforeValidator(_count)] = "auto"
    threads: int = Field(default=1, ge=1, le=512)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    timeout: Annotated[
        Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)] | None,
        BeforeValidator(_seconds),
    ] = None
    memory: Size | None = None
    precision: Precision = "auto"
    offload: Offload = "auto"
    seed: int = Field(default=0, ge=0)
    max_passes: int = Field(default=MAX_PASSES, ge=1)
    controls: bool = True
    notify: tuple[str, ...] = ()
