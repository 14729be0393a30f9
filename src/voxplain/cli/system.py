"""``voxplain doctor``: versions and devices, and optional packages that are missing."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import version

from voxplain.cli.app import app
from voxplain.cli.console import fact, out, table
from voxplain.version import __version__

# Module, extra of voxplain, what it is for.
_OPTIONAL = (
    ("pydicom", "dicom", "reading DICOM series"),
    ("pylibjpeg", "dicom", "reading compressed DICOM"),
    ("highdicom", "dicom", "writing DICOM objects"),
    ("monai", "monai", "networks and bundles of MONAI"),
    ("dynamic_network_architectures", "nnunet", "trained folders of nnU-Net v2"),
    ("onnxruntime", "onnx", "ONNX networks"),
    ("nilearn", "demo", "the brain template of the demo"),
)


@app.command()
def doctor() -> None:
    """Show versions, devices, cores and memory, and which optional packages are missing."""
    from voxplain.io.facts import software

    fact("voxplain", __version__)
    for name, installed in software().items():
        if name != "voxplain":
            fact(name, installed)
    fact("system", f"{platform.system()} {platform.machine()}")
    fact("cores", str(_cores()))
    memory = _memory()
    fact("memory", f"{memory:.0f} GB" if memory else "unknown")
    for name, value in _devices():
        fact(name, value)
    out.print()
    rows = [_optional(*entry) for entry in _OPTIONAL]
    out.print(table(("optional", "state", "for", "to install"), rows))


def _optional(module: str, extra: str, purpose: str) -> tuple[str, str, str, str]:
    if importlib.util.find_spec(module) is None:
        return module, "missing", purpose, f'pip install "voxplain[{extra}]"'
    return module, version(module), purpose, ""


def _cores() -> int:
    """The cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> float | None:
    """Memory of the machine in GB, where the system reports it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> list[tuple[str, str]]:
    import torch

    devices = [("device", f"cpu, {torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        devices.append(("device", f"cuda:{index} {gpu.name}, {gpu.total_memory / 1e9:.0f} GB"))
    if torch.backends.mps.is_available():
        devices.append(("device", "mps"))
    return devices
