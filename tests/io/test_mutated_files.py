"""400 mutated files of every format: an image or one sentence, never a foreign error.

Each format is read in a process of its own, whose address space is limited.
"""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from synthetic_dicom import write_series
from test_dicom_segmentation import LESION, write_segmentation
from test_read_itk_formats import write_mha, write_nrrd

VALUES = np.random.default_rng(0).integers(0, 200, (9, 10, 11)).astype(np.int16)
FLAT = VALUES[:, :, 0].astype(np.uint8)
COUNT = 400
SECONDS = 400

SCRIPT = """
import json, logging, random, resource, sys, traceback, warnings
from pathlib import Path

import numpy as np

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io import read_image, read_mask

logging.disable()
warnings.simplefilter("ignore")
source, count = Path(sys.argv[1]), int(sys.argv[2])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, used + 3 * 2**30))
whole, draw, found = source.read_bytes(), random.Random(0), {"read": 0, "refused": 0, "wrong": []}
start = min(len(whole), 1000)
for number in range(count):
    content = bytearray(whole)
    kind = draw.choice(["bytes", "bytes", "number", "cut", "repeat", "remove"])
    at = draw.randrange(start if draw.random() < 0.7 else len(whole))
    if kind == "bytes":
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(max(0, at - 40), min(len(whole), at + 40))] = draw.randrange(256)
    elif kind == "number":
        content[at : at + 4] = draw.choice([b"\\xff\\xff\\xff\\x7f", bytes(4), b"9999"])
    elif kind == "cut":
        del content[at:]
    elif kind == "repeat":
        content[at:at] = content[max(0, at - 50) : at] * draw.choice([1, 40])
    else:
        del content[at : at + draw.choice([1, 4, 100])]
    source.write_bytes(content)
    ask = [lambda: read_image(source), lambda: read_mask(source, Grid((9, 10, 11), np.eye(4)))]
    for read in ask:
        try:
            read()
            found["read"] += 1
        except InputError as error:
            found["refused"] += 1
            if "\\n" in str(error) or source.name not in str(error):
                found["wrong"].append(f"{number} {kind}: {error}")
        except BaseException:
            found["wrong"].append(f"{number} {kind}: {traceback.format_exc()[-600:]}")
print(json.dumps(found))
"""


def written(folder, kind):
    """A small sound file of a format."""
    path = folder / f"scan{kind}"
    if kind in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(VALUES, np.diag([1, 2, 3, 1])), path)
    elif kind == ".hdr":
        nib.save(nib.Nifti1Pair(VALUES, np.diag([1, 2, 3, 1])), path)
    elif kind == ".mgz":
        nib.save(nib.MGHImage(VALUES.astype(np.float32), np.diag([1, 2, 3, 1])), path)
    elif kind == ".npy":
        np.save(path, VALUES)
    elif kind == ".npz":
        np.savez_compressed(path, VALUES)
    elif kind == ".dcm":
        write_series(folder, VALUES[:1]).joinpath("001.dcm").rename(path)
    elif kind == "-seg.dcm":
        write_segmentation(path, [LESION])
    elif kind == ".mha":
        write_mha(path)
    elif kind == ".nrrd":
        write_nrrd(path)
    elif kind == ".ome.tif":
        tifffile.imwrite(path, np.stack([FLAT] * 3), metadata={"axes": "CYX"})
    else:
        Pillow.fromarray(FLAT).save(path)
    return path


FORMATS = [
    ".nii", ".nii.gz", ".hdr", ".mgz", ".npy", ".npz", ".dcm", "-seg.dcm", ".mha", ".nrrd", ".png",
    ".jpg", ".tif", ".bmp", ".ome.tif",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_are_read_or_refused_in_one_sentence(tmp_path, kind):
    path = written(tmp_path, kind)
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(COUNT)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert not found["wrong"], "\n".join(found["wrong"][:5])
    assert found["refused"] > COUNT // 10
    assert found["read"] + found["refused"] == 2 * COUNT
