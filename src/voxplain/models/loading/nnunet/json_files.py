"""The JSON files of a trained folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from voxplain.errors import ModelError

_LARGEST = 64 * 2**20


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file that holds one JSON object.

    Raises:
        ModelError: If it is missing, larger than 64 MiB, or holds something else.
    """
    if not file.is_file():
        v1 = (file.parent / "plans.pkl").is_file()
        why = "; plans.pkl beside it is of nnU-Net v1, which is not supported" if v1 else ""
        raise ModelError(
            f"{str(file.parent)!r} is no trained folder of nnU-Net v2: there is no {file.name} in "
            f"it{why}"
        )
    if file.stat().st_size > _LARGEST:
        raise ModelError(f"{file.name} is larger than {_LARGEST // 2**20} MiB")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} holds no JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file.name} holds no JSON object")
    return content
