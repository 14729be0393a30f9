"""The INFORM table on the demo's network: thirty maps, three scores, one command.

python studies/inform_demo/run.py [--quick] [--output inform-run] [--whole]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import nibabel
import numpy as np
from methods import methods, passes
from numpy.typing import NDArray
from table import show

from voxplain.cli.studies import carry_out
from voxplain.demo import WEIGHTS, write_demo
from voxplain.records.scores import Scores
from voxplain.study import Study

WHITE_MATTER = 3
CENTER, CORNER = [40, 48, 40], [16, 16, 16]
"""Voxels of 2 mm that are explained; the whole brain takes fifteen times as long."""


def main() -> None:
    """Writes the study, runs it, and prints the table."""
    arguments = _arguments()
    study = write_study(arguments.output, CORNER if arguments.quick else CENTER, arguments.whole)
    started = perf_counter()
    carry_out(Study.load(study), None, resume=True, trust=False)
    print(f"{passes()} gradient passes, {perf_counter() - started:.0f} s in all")
    show(Scores.read(arguments.output / "run" / "metrics.parquet"))


def write_study(folder: Path, size: list[int], whole: bool = False) -> Path:
    """The demo's study with thirty methods, three metrics, references and a reference mask.

    Args:
        folder: Made if it is not there.
        size: Voxels around the center that are explained.
        whole: Explain all of the brain instead.
    """
    write_demo(folder)
    image = nibabel.load(folder / "mni152_t1.nii.gz")
    values = np.asarray(image.dataobj, dtype=np.float32)
    for number, other in enumerate(_others(values)):
        _write(other, image.affine, folder / f"other{number}.nii.gz")
    _write(_white_matter(values), image.affine, folder / "white_matter.nii.gz")
    steps = [{"kind": "reorient", "axes": "RAS"}, {"kind": "spacing", "size": 2.0},
             {"kind": "crop_foreground", "margin": 2}, {"kind": "pad_to_multiple", "multiple": 4},
             {"kind": "normalize", "mode": "minmax"}]  # fmt: skip
    if not whole:
        steps.append({"kind": "center_crop_pad", "shape": size})
    study = {
        "cases": [{"id": "mni152", "image": "mni152_t1.nii.gz", "channels": ["T1"],
                   "reference": "white_matter.nii.gz"}],
        "models": [{"name": "unet3d", "factory": "voxplain.zoo:unet3d", "weights": WEIGHTS,
                    "classes": ["background", "CSF", "gray matter", "white matter"],
                    "preprocess": steps}],
        "target": {"kind": "pixelwise", "label": WHITE_MATTER},
        "methods": methods(),
        "metrics": ["roc_auc", "max_dice", {"name": "fidelity", "protocol": "brocki2022"}],
        "references": [f"other{number}.nii.gz" for number in range(4)],
        "output": "run",
    }  # fmt: skip
    file = folder / "study.yaml"
    file.write_text(json.dumps(study, indent=1), encoding="utf-8")  # JSON is YAML
    return file


def _others(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """References of expected gradients: the same brain turned, with other tissue at most places."""
    return [np.flip(values, axes) for axes in ((1,), (2,), (1, 2), (0, 2))]


def _white_matter(like: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where white matter is the most probable tissue of the published maps."""
    from voxplain.demo import template_file

    folder, name = template_file().parent, template_file().name
    white, gray = (
        np.asarray(nibabel.load(folder / name.replace("_t1_", f"_{kind}_")).dataobj, np.float32)
        for kind in ("wm", "gm")
    )
    white, gray = white / white.max(), gray / gray.max()
    return ((white > gray) & (white > 1 - white - gray) & (like > 0)).astype(np.uint8)


def _write(values: NDArray[np.generic], affine: NDArray[np.float64], path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), affine), path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("inform-run"))
    parser.add_argument("--quick", action="store_true", help="a tiny box, to see that it runs")
    parser.add_argument("--whole", action="store_true", help="the whole brain")
    return parser.parse_args()


if __name__ == "__main__":
    main()
