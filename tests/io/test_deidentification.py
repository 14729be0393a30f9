"""A marker in every attribute, header field, file name and tag reaches no image and no file."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import DicomDictionary
from sidecar_example import sidecar
from synthetic_dicom import write_series

from voxplain.io import read_image, write_image, write_labels, write_map

MARKER = "MARKERDOE"
TEXT = ("AE", "CS", "LO", "SH", "PN", "ST", "LT", "UT", "UC")
PIXEL = ("PhotometricInterpretation", "SpecificCharacterSet")


def marked_dicom(folder):
    write_series(folder, np.random.default_rng(0).integers(0, 99, (3, 4, 5), dtype=np.int16))
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        for tag, (vr, multiplicity, _, _, keyword) in DicomDictionary.items():
            if vr in TEXT and multiplicity == "1" and keyword not in PIXEL and tag >> 16 > 2:
                data.add_new(tag, vr, MARKER)
        data.add_new(0x00091001, "LO", MARKER)
        data.preamble = (MARKER * 20).encode()[:128]
        data.save_as(folder / f"{MARKER}_{file.name}")
        file.unlink()
    return folder


def marked_nifti(folder):
    file = nib.Nifti1Image(
        np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32), np.eye(4)
    )
    for name, size in (("descrip", 80), ("aux_file", 24), ("db_name", 18), ("intent_name", 16)):
        file.header[name] = MARKER[:size].encode()
    file.header.extensions.append(nib.nifti1.Nifti1Extension("comment", MARKER.encode()))
    nib.save(file, folder / f"{MARKER}.nii.gz")
    return folder / f"{MARKER}.nii.gz"


def marked_picture(folder, suffix):
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (4, 5), dtype=np.uint8))
    exif, text = picture.getexif(), PngInfo()
    for tag in (270, 271, 272, 305, 315, 33432, 37510):
        exif[tag] = MARKER
    text.add_text("Comment", MARKER)
    text.add_itxt("Patient", MARKER)
    path = folder / f"{MARKER}{suffix}"
    picture.save(path, exif=exif, pnginfo=text, comment=MARKER, description=MARKER)
    return path


SOURCES = {
    "dicom": marked_dicom,
    "nifti": marked_nifti,
    "png": lambda folder: marked_picture(folder, ".png"),
    "jpeg": lambda folder: marked_picture(folder, ".jpg"),
    "tiff": lambda folder: marked_picture(folder, ".tif"),
}


def content_of(file):
    content = file.read_bytes()
    return content + (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b"")


@pytest.mark.parametrize("kind", SOURCES)
def test_the_marker_stays_with_the_source(tmp_path, kind):
    folder = tmp_path / MARKER
    folder.mkdir()
    source = SOURCES[kind](folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_image(source)
    assert MARKER.encode() in content_of(next(folder.iterdir()))
    assert MARKER not in repr(image)
    assert MARKER not in "".join(str(remark.message) for remark in caught)

    out = tmp_path / "out"
    write_image(image, out / "image.nii.gz")
    write_map(image.data, image.grid, out / "map", sidecar())
    write_labels((image.data[0] > 0).long(), image.grid, out / "labels.nii.gz")
    assert len(list(out.iterdir())) >= 4
    for file in out.iterdir():
        assert MARKER.encode() not in content_of(file)
        assert MARKER not in file.name
