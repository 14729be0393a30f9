"""Standard codes of what classes are called, and a general one for all others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

_CATEGORIES = {
    "cid7159": "MorphologicallyAbnormalStructure",
    "cid7166": "Tissue",
    "cid7192": "AnatomicalStructure",
    "cid7193": "PhysicalObject",
}
"""Context groups of the standard in which a class is looked up, with the category of each."""


def codes_of(name: str) -> tuple[Code, Code]:
    """The category and the type of a segment by the name of its class.

    A name that is a term of the standard (``liver``, ``blood vessel``) has its code; others are
    a selected region, of which no more is said.
    """
    from pydicom.sr.codedict import codes

    keyword = _keyword(name)
    for group, category in _CATEGORIES.items():
        found = getattr(codes, group)
        if keyword and keyword in found.dir():
            return getattr(codes.cid7150, category), getattr(found, keyword)
    return codes.cid7150.SpatialAndRelationalConcept, codes.DCM.SelectedRegion


def _keyword(name: str) -> str:
    parts = re.findall(r"[A-Za-z]+", name)
    return "".join(part[:1].upper() + part[1:].lower() for part in parts)
