"""The thirty maps of the INFORM study: five methods, plain and smoothed, by voxel and by region."""

from __future__ import annotations

from typing import Any

STEPS, SAMPLES = 16, 24
COPIES, COPIES_OF_PATHS = 12, 3
SIGMA = 0.15
NOISES = {"": 0, "SG ": 1, "SG2 ": 2}
"""Prefix of a row, and the power of SmoothGrad."""


def methods(region_mode: str = "full") -> list[dict[str, Any]]:
    """Fifteen pixel maps and the region map of each, all of absolute values.

    Args:
        region_mode: How XRAI combines segments, ``full`` or ``fast``.
    """
    pixel = [
        _labeled(f"{prefix}{name}", _smoothed(of, copies, power) if power else of)
        for name, (of, copies) in _plain().items()
        for prefix, power in NOISES.items()
    ]
    region = [
        {
            "name": "xrai",
            "of": {key: value for key, value in row.items() if key != "label"},
            "mode": region_mode,
            "label": f"XRAI {row['label']}",
        }
        for row in pixel
    ]
    return [*pixel, *region]


def passes() -> int:
    """Gradient passes of the distinct streams; those that several maps share count once."""
    plain = 2 + 2 * STEPS + SAMPLES
    return plain + 2 * COPIES + COPIES_OF_PATHS * (2 * STEPS + SAMPLES)


def _plain() -> dict[str, tuple[dict[str, Any], int]]:
    """The methods and their numbers of noisy copies, by their names on the poster."""
    black_white = "integrated_gradients_black_white"
    return {
        "BP": ({"name": "saliency"}, COPIES),
        "D": ({"name": "deconvolution"}, COPIES),
        "IGB": (
            {"name": "integrated_gradients", "baseline": "minimum", "steps": STEPS},
            COPIES_OF_PATHS,
        ),
        "IGBW": ({"name": black_white, "steps": STEPS}, COPIES_OF_PATHS),
        "EG": ({"name": "expected_gradients", "samples": SAMPLES}, COPIES_OF_PATHS),
    }


def _smoothed(of: dict[str, Any], copies: int, power: int) -> dict[str, Any]:
    return {"name": "smoothgrad", "of": of, "samples": copies, "power": power, "sigma": SIGMA}


def _labeled(label: str, method: dict[str, Any]) -> dict[str, Any]:
    return {**method, "abs": True, "label": label}
