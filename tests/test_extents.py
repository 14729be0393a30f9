"""Sizes in voxels, fractions and millimeters."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from voxplain.errors import ConfigError
from voxplain.extents import Extent, PositiveExtent, measured, require_bounded, resolve

ADAPTER: TypeAdapter[Any] = TypeAdapter(Extent)


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        (16, (16, 16)),
        (0.25, (25, 10)),
        ("8mm", (4, 16)),
        ("7.5 mm", (4, 15)),
        ((3, "4mm"), (3, 8)),
        ([0.5, 1], (50, 1)),
        (1.0, (100, 40)),
        (0, (0, 0)),
    ],
)
def test_resolve(extent: Any, expected: tuple[int, ...]) -> None:
    assert resolve(extent, (100, 40), (2.0, 0.5)) == expected


@pytest.mark.parametrize("given", [16, 0.25, "8mm", (1, 2, 3), ("8mm", 0.5)])
def test_what_is_a_size(given: Any) -> None:
    assert ADAPTER.validate_python(given) == given
    assert ADAPTER.validate_python(list(given) if isinstance(given, tuple) else given) == given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("8cm", r"'8cm' is not a size; write 16 \(voxels\), 0.25 \(of an axis\) or '8mm'"),
        ("mm", "is not a size"),
        ("", "is not a size"),
        (-1, "a size cannot be negative, and this is -1"),
        ((4, -0.5), "a size cannot be negative, and this is -0.5"),
        (None, "validation error"),
        (float("nan"), "nan is not a size"),
        (float("inf"), "inf is not a size"),
        ((4, 10**9), "1,000,000,000 voxels are more than any image has"),
    ],
)
def test_what_is_none(given: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(given)


@pytest.mark.parametrize("given", [0, 0.0, "0mm", "0.0 mm", (4, 0)])
def test_zero_is_a_margin_and_no_size(given: Any) -> None:
    assert ADAPTER.validate_python(given) == given
    with pytest.raises(ValidationError, match="a size of 0 holds no voxel"):
        TypeAdapter(PositiveExtent).validate_python(given)


def test_shapes_that_no_image_has() -> None:
    require_bounded((1024, 1024, 2048), "window.size")
    with pytest.raises(ConfigError, match=r"window.size asks for 90,000 x 90,000 voxels"):
        require_bounded((90_000, 90_000), "window.size")


def test_errors() -> None:
    with pytest.raises(
        ConfigError, match="'8mm' needs the pixel size of the image, which is unknown"
    ):
        resolve("8mm", (10, 10), None)
    with pytest.raises(ConfigError, match=r"3 sizes \[1, 2, 3\] for an image with 2 axes"):
        resolve((1, 2, 3), (10, 10), None)
    with pytest.raises(ConfigError, match="'8' is not a size"):
        resolve("8", (10, 10), None)


@pytest.mark.parametrize(
    ("share", "length", "voxels"), [(0.29, 100, 29), (0.3, 9, 3), (0.1, 37, 4), (0.1, 34, 3)]
)
def test_a_share_of_an_axis_is_the_nearest_number_of_voxels(
    share: float, length: int, voxels: int
) -> None:
    assert resolve(share, (length,), None) == (voxels,)
    spacing = 0.7
    millimeters = f"{share * length * spacing:.6f}mm"
    assert resolve(millimeters, (length,), (spacing,)) == (voxels,)


@pytest.mark.parametrize("whole", [1.0, 0.999, (1.0, 4)])
def test_a_whole_axis_is_a_size_and_more_is_none(whole: Any) -> None:
    assert ADAPTER.validate_python(whole) == whole
    with pytest.raises(ValidationError, match="times the axis; write 2 for voxels"):
        ADAPTER.validate_python(1.5)


def test_a_length_is_in_millimeters_or_in_voxels() -> None:
    assert measured("7.5mm", 2, (2.0, 0.5)) == (7.5, (2.0, 0.5))
    assert measured(3, 2, (2.0, 0.5)) == (3.0, (1.0, 1.0))
    with pytest.raises(ConfigError, match="'8mm' needs the pixel size"):
        measured("8mm", 2, None)
    with pytest.raises(ConfigError, match="'8' is not a length"):
        measured("8", 2, (1.0, 1.0))
