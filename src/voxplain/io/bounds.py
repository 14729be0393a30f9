"""What every reader shares: bounded reading, and foreign errors told in one sentence."""

from __future__ import annotations

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from voxplain.errors import InputError, VoxplainError

UNPACKED_BYTES = 2**31
"""Bytes that any file may unpack to: 512 million values, such as 1024 x 1024 x 512."""
UNPACKED_RATIO = 100
"""How many times its own size a larger file may unpack to."""

_CHUNK = 2**24
_PIECE = 2**20
_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns every error of a reader into one sentence with the name of the file.

    Raises:
        InputError: In place of any error; its own ones get the name of the file if they lack it.
    """
    try:
        yield
    except VoxplainError as error:
        if path.name in str(error):
            raise
        raise InputError(f"{path.name}: {error}") from None
    except MemoryError:
        raise InputError(f"{path.name} needs more memory than there is") from None
    except Exception as error:
        raise InputError(
            f"{path.name} is damaged or cut off, or is no file of its kind "
            f"({type(error).__name__}); copy or convert it again"
        ) from None


def require_bounded(path: Path, shape: Sequence[int], itemsize: int = 4) -> int:
    """The bytes that an array of a file takes, before anything of it is unpacked.

    Args:
        path: The file, whose size counts.
        shape: Of the array, as the header promises it.
        itemsize: Bytes per value as stored.

    Raises:
        InputError: If the array is empty, or larger as float32 than :data:`UNPACKED_BYTES` and than
            :data:`UNPACKED_RATIO` times the file.
    """
    sizes = [int(size) for size in shape]
    if not sizes or min(sizes) < 1:
        raise InputError(f"{path.name} holds no voxels: its shape is {tuple(sizes)}")
    limit = _limit(path)
    if math.prod(sizes) * max(itemsize, 4) > limit:
        raise InputError(
            f"{path.name} promises {' x '.join(map(str, sizes))} values, and at most "
            f"{limit / 2**30:.4g} GiB are unpacked from a file of its size; crop or resample it"
        )
    return math.prod(sizes) * itemsize


def require_inflated_bounded(path: Path, content: bytes) -> None:
    """Refuses a deflated stream that is larger than a file may be, before all of it is unpacked.

    Args:
        path: The file, whose size counts.
        content: The stream, without a header; what is not deflated is ignored.

    Raises:
        InputError: If it unpacks to more than :data:`UNPACKED_BYTES` and than
            :data:`UNPACKED_RATIO` times the file.
    """
    limit, size = _limit(path), 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with contextlib.suppress(zlib.error):
        while content and not inflater.eof:
            size += len(inflater.decompress(content, _PIECE))
            content = inflater.unconsumed_tail
            if size > limit:
                raise InputError(
                    f"{path.name} unpacks to more than {limit / 2**30:.4g} GiB, and no more is "
                    "unpacked from a file of its size; save it without compression"
                )


def _limit(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(UNPACKED_BYTES, UNPACKED_RATIO * path.stat().st_size)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, unpacked as it is read if it is gzip."""
    with path.open("rb") as plain:
        is_packed = plain.read(2) == _GZIP
        plain.seek(0)
        if not is_packed:
            yield plain
            return
        with gzip.GzipFile(fileobj=plain, mode="rb") as packed:
            yield packed  # type: ignore[misc]


def read_exactly(path: Path, stream: IO[bytes], size: int) -> bytes:
    """``size`` bytes of a stream, never more.

    Raises:
        InputError: If the stream ends before.
    """
    parts, missing = [], size
    while missing > 0 and (part := stream.read(min(missing, _CHUNK))):
        parts.append(part)
        missing -= len(part)
    if missing > 0:
        raise InputError(
            f"{path.name} is damaged or cut off: {missing} of the {size} bytes that its header "
            "promises are missing"
        )
    return b"".join(parts)


def beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names, which lies in the folder of the header.

    Raises:
        InputError: If the name leads to another folder or to several files, or there is no such
            file.
    """
    if Path(name).name != name or name.upper() == "LIST" or "%" in name:
        raise InputError(
            f"{path.name} keeps its voxels in {name!r}; one file in the same folder can be read"
        )
    voxels = path.parent / name
    if not voxels.is_file():
        raise InputError(f"{path.name} keeps its voxels in {name}, and there is no such file")
    return voxels
