"""A package of methods and metrics that go wrong in every way, as an installed plug-in."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tiny import TinyStudy

PLUGIN = '''\
"""Methods and metrics that never return, eat memory, crash, leave or raise."""

from __future__ import annotations

import ctypes
import os
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from voxplain.attribution import Context, Method, register
from voxplain.attribution.methods.integrated_gradients import IntegratedGradients
from voxplain.metrics import MapField, Metric, MetricContext, Value
from voxplain.metrics import register as register_metric


def fault(how: str) -> None:
    if how == "spins":
        while True:
            pass
    elif how == "holds":
        ctypes.PyDLL(None).sleep(600)  # a C call that holds the interpreter
    elif how == "eats":
        held = []
        while True:
            held.append(np.ones(25_000_000))
    elif how == "crashes":
        ctypes.string_at(0)
    elif how == "leaves":
        ctypes.PyDLL(None)._exit(3)
    elif how == "once":
        if not os.path.exists("crashed"):
            open("crashed", "w").close()
            ctypes.string_at(0)
    elif how == "raises":
        raise ValueError("no")


@register
class Faulty(IntegratedGradients):
    """Integrated gradients that go wrong."""

    name: Literal["faulty"] = "faulty"
    how: str = "raises"

    def maps(self, results, context: Context) -> dict[str | None, Tensor]:
        fault(self.how)
        return super().maps(results, context)


@register_metric
class FaultyMetric(Metric):
    """A metric that goes wrong."""

    family: ClassVar[str] = "complexity"
    direction: ClassVar[str] = "none"
    name: Literal["faulty_metric"] = "faulty_metric"
    how: str = "raises"

    def score(self, field: MapField, context: MetricContext) -> Value:
        fault(self.how)
        return Value(1.0)
'''


def install(tiny: TinyStudy) -> None:
    """Installs the package beside the network of a study."""
    (tiny.packages / "faulty.py").write_text(PLUGIN)
    facts = tiny.packages / "faulty-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    points = "[voxplain.methods]\nfaulty = faulty\n[voxplain.metrics]\nfaulty = faulty\n"
    (facts / "entry_points.txt").write_text(points)


def faulty(how: str, steps: int) -> dict[str, Any]:
    """A method that goes wrong; of another number of steps, it shares nothing with others."""
    return {"name": "faulty", "how": how, "steps": steps, "label": how}


def start(tiny: TinyStudy, *arguments: str) -> subprocess.Popen[str]:
    """``voxplain`` in a process of its own, in the folder of the study."""
    return subprocess.Popen(
        [sys.executable, "-m", "voxplain", *arguments],
        cwd=tiny.folder,
        env=tiny.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def said(tiny: TinyStudy, *arguments: str) -> tuple[int, str]:
    """Exit code and everything that ``voxplain`` prints."""
    process = start(tiny, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err
