"""``python -m benchmarks [NAME ...] [--quick] [--threads N] [--publish]``."""

from __future__ import annotations

import argparse
import warnings
from importlib import import_module

import torch

from benchmarks.page import publish, show

NAMES = (
    "all_layers",
    "integrated",
    "single",
    "poster",
    "overhead",
    "windows",
    "incremental",
    "perturbation",
    "metrics",
    "removal",
    "cascade",
    "dissection",
    "inform",
    "synthesis",
    "studies",
    "links",
)


def main() -> None:
    """Runs the comparisons that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--publish", action="store_true", help="write into docs/benchmarks.md")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(NAMES):
        parser.error(
            f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}"
        )
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore", module="captum")
    for name in asked.names or NAMES:
        table = import_module(f"benchmarks.{name}").run(quick=asked.quick)
        show(table)
        if asked.publish and not asked.quick:
            publish(table)


if __name__ == "__main__":
    main()
