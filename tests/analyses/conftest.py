"""A study of bright blobs for analyses: four patients with references, in 3-D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TinyStudy, blob, save, write_tiny

CENTERS = ((6, 6, 5), (8, 4, 6), (5, 7, 4), (9, 6, 5))


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    """Patients a to d; label 1 is where the smoothed image is bright."""
    tiny = write_tiny(tmp_path / "work", monkeypatch)
    cases: list[dict[str, Any]] = []
    for name, center in zip("abcd", CENTERS, strict=True):
        image = blob(center)
        save(tiny.folder / f"{name}.nii.gz", image)
        save(tiny.folder / f"{name}_seg.nii.gz", (image > 1.2).astype(np.uint8))
        cases.append(
            {
                "id": name,
                "image": f"{name}.nii.gz",
                "reference": f"{name}_seg.nii.gz",
                "facts": {"scanner": "A" if name in "ab" else "B"},
            }
        )
    concepts = [
        {"kind": "labels", "names": {"blob": 1}},
        {"kind": "ring", "of": "blob", "within": "6mm"},
    ]
    tiny.write(cases=cases, methods=[], concepts=concepts)
    return tiny
