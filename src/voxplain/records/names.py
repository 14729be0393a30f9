"""What the files of a run are called, and the note that describes them as derivatives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

_LONGEST = 100


def map_name(case: str, target: str, method: str, layer: str | None = None) -> str:
    """The stem of a map's files: ``<case>_label-<target>_desc-<method>[-<layer>]_attr``.

    Letters, digits, ``_``, ``.``, ``+`` and ``-`` stay; anything else becomes ``-`` and six digits
    of a hash follow, so that two names that differ never share a file.
    """
    description = safe(method) if layer is None else f"{safe(method)}-{safe(layer)}"
    return f"{safe(case)}_label-{safe(target)}_desc-{description}_attr"


def safe(name: str) -> str:
    """A name that every file system takes, one to one with the name given."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "-", name).lstrip(".")
    if plain == name and len(name) <= _LONGEST:
        return name
    return f"{plain[:_LONGEST]}+{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def dataset_description(version: str, sources: Sequence[str] = ()) -> dict[str, Any]:
    """The content of ``dataset_description.json`` at the root of a run (BIDS derivatives).

    Args:
        version: Of voxplain.
        sources: What the maps derive from, as hashes or public identifiers; never paths.
    """
    return {
        "Name": "voxplain attribution maps",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxplain", "Version": version}],
        "SourceDatasets": [{"URL": source} for source in sources],
    }
