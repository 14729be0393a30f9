"""Writes axial slices of cases as files with a table of cases, for a study.

python studies/brain_tumor/slices.py DATA OUTPUT [--split test|train|all] [--step 4] [--edema 0]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import nibabel
import numpy as np
from data import SPACING, case_ids, slice_numbers, volume
from network import CLASSES, MODALITIES
from numpy.typing import NDArray

EDEMA = CLASSES.index("ED")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the cases, with cases.csv")
    parser.add_argument("output", type=Path, help="folder for slices and table")
    parser.add_argument("--split", default="test", choices=("train", "test", "all"))
    parser.add_argument("--step", type=int, default=4, help="every so many slices")
    parser.add_argument("--edema", type=int, default=0, help="fewest pixels of edema in a slice")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "cases.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "patient", *MODALITIES, "reference", "rank"])
        splits = ("train", "test") if options.split == "all" else (options.split,)
        cases = [case for split in splits for case in case_ids(options.data, split)]
        for patient, case in enumerate(cases):
            voxels, labels = volume(options.data, case)
            for number in slice_numbers(options.data, case, options.step):
                if int((labels[..., number] == EDEMA).sum()) < options.edema:
                    continue
                name = f"p{patient:02d}-z{number:03d}"
                files = [
                    _write(options.output / f"{name}_{modality}.nii.gz", voxels[index, ..., number])
                    for index, modality in enumerate(MODALITIES)
                ]
                mask = labels[..., number].to(dtype=voxels.dtype)
                files.append(_write(options.output / f"{name}_seg.nii.gz", mask))
                table.writerow([name, f"p{patient:02d}", *files, 2])


def _write(file: Path, values: NDArray[np.float32]) -> str:
    affine = np.diag([-SPACING[0], -SPACING[1], 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(values)[..., None], affine), file)
    return file.name


if __name__ == "__main__":
    main()
