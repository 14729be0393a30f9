"""Links: effects of concepts of one layer on concepts of the next, by intervention."""

from voxplain.concepts.links.analysis import Links, LinkSettings, link
from voxplain.concepts.links.matrix import Link, LinkMatrix
from voxplain.concepts.links.nodes import (
    ClassOutput,
    ConceptUnits,
    Edge,
    direction_nodes,
    input_nodes,
)
from voxplain.concepts.links.record import LinksRecord, links_record
from voxplain.concepts.links.size_driven import size_driven_links
from voxplain.concepts.links.skips import find_skips, named_skips

__all__ = [
    "ClassOutput",
    "ConceptUnits",
    "Edge",
    "Link",
    "LinkMatrix",
    "LinkSettings",
    "Links",
    "LinksRecord",
    "direction_nodes",
    "find_skips",
    "input_nodes",
    "link",
    "links_record",
    "named_skips",
    "size_driven_links",
]
