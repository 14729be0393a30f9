"""Weights from files, without running code unless trusted; and their hash."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxplain.errors import ModelError

_UNPACKED_BYTES = 2**26
_UNPACKED_RATIO = 10


def read_weights(file: Path, *, trust: bool = False, allowed: Sequence[Any] = ()) -> Any:
    """The content of a weights file: tensors by name, perhaps nested in a checkpoint.

    Args:
        file: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        trust: Whether a file that holds more than tensors may be unpickled.
        allowed: Classes and functions that may stand in it beside tensors, as for
            ``torch.serialization.safe_globals``.

    Raises:
        ModelError: If the file cannot be read, or needs trust.
    """
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    require_bounded(file)
    try:
        with torch.serialization.safe_globals([*allowed]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(file):
            raise _unreadable(file, error) from error
        require_trust(trust, f"{file.name} holds more than tensors, and unpickling it runs code")
    except Exception as error:
        raise _unreadable(file, error) from error
    return _unpickle(file)


def existing(file: Path, what: str) -> Path:
    """The path of a file that exists.

    Raises:
        ModelError: If it does not exist.
    """
    if not file.is_file():
        raise ModelError(f"{what} {str(file)!r} does not exist")
    return file


def require_bounded(file: Path) -> None:
    """Refuses a zip archive that unpacks to much more than its size; torch hardly compresses.

    Raises:
        ModelError: If it unpacks to more than 64 MiB and to more than ten times its size.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(_UNPACKED_BYTES, _UNPACKED_RATIO * file.stat().st_size):
        raise ModelError(
            f"{file.name} would unpack to {unpacked / 2**20:.0f} MiB from "
            f"{file.stat().st_size / 2**20:.3g} MiB, which no file of torch does; save it again "
            "with torch.save"
        )


def require_trust(trust: bool, reason: str) -> None:
    """Refuses to run code from a file that is not trusted.

    Raises:
        ModelError: If it is not trusted.
    """
    if not trust:
        raise ModelError(f"{reason}; repeat with --trust (trust=True) if you trust its source")


def _read_safetensors(file: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:
        raise _unreadable(file, error) from error


def _unpickle(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        raise _unreadable(file, error) from error


def _is_pickle(file: Path) -> bool:
    """Whether a file begins as a zip archive of torch or as a pickle."""
    with file.open("rb") as stream:
        first_bytes = stream.read(2)
    return first_bytes in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _unreadable(file: Path, error: Exception) -> ModelError:
    # The first line of a reader's message says what is wrong.
    reason = (str(error).strip().splitlines() or [""])[0]
    return ModelError(
        f"weights {file.name} cannot be read ({type(error).__name__}: {reason}); a safetensors "
        "file or a state_dict saved by torch.save works"
    )
