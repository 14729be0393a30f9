"""Writes `docs/methods.md` from the registry.

Usage: `python scripts/write_methods_page.py`. The entry of a method follows from its declaration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markdown_page import anchor, grid, listed, prose, sized, table

from voxplain.attribution import Method
from voxplain.attribution.describe.card import CHANNELS, PICTURE, VOLUME, method_card
from voxplain.attribution.describe.families import Family, in_order
from voxplain.attribution.describe.parameters import parameters
from voxplain.attribution.methods import methods

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
COMMAND = "python scripts/write_methods_page.py"
SIGNS = {
    "signed": "evidence for (positive) and against (negative)",
    "positive": "evidence for only",
    "absolute": "strength without direction",
}
RESAMPLING = {"value": "interpolated", "mass": "interpolated, with its sum kept"}


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    """The page of the methods of the package, without those of plug-ins."""
    kinds = [methods.get(name) for name in methods]
    own = [kind for kind in kinds if kind.__module__.startswith("voxplain.")]
    families = in_order(kind.family for kind in own)
    blocks = [introduction(own, families)]
    for family in families:
        members = [kind for kind in own if kind.family == family.name]
        blocks += [f"## {family.title}", family.idea, overview(members)]
        blocks += [entry(kind) for kind in members]
    return "\n\n".join(blocks) + "\n"


def introduction(kinds: Sequence[type[Method]], families: Sequence[Family]) -> str:
    """The head of the page: links, symbols, and the parameters of all methods."""
    picture, volume = sized(PICTURE), sized(VOLUME)
    links = " · ".join(f"[{family.title}](#{anchor(family.title)})" for family in families)
    shared = [parameter for parameter in parameters(kinds[0]) if parameter.shared]
    return f"""\
# Methods

<!-- Made by `{COMMAND}`; changes by hand do not last. -->

{len(kinds)} methods. Each is requested by its name, or with parameters:
`{{name: integrated_gradients, steps: 16}}`.

{links}

**Symbols.** x is the image, b a baseline, S(x) the explained score, g its gradient at the image;
A and G are the activation of a layer and the gradient there; a mask m keeps voxels where it is 1.
Maps are raw: signed where the method is, on all channels, without any scaling.

**Cost** is counted for one image with the defaults: a picture of {picture} / a volume of
{volume}, with one channel and a network whose last feature layer has {CHANNELS} channels. A
pass is forward and backward. Methods with equal streams share their passes. A method that would
take more than `run.max_passes` is refused before anything starts.

**Windows.** With sliding windows most maps equal those of a network that takes the whole volume at
once; where products or rectifiers see the gradient of one window at a time, they are close to
them. Methods of masks run only the windows again that a mask touches.

All methods have these parameters:

{table(shared)}"""


def overview(kinds: Sequence[type[Method]]) -> str:
    """A table of methods, one line each."""
    rows = [
        (f"[`{kind.title()}`](#{kind.title()})", kind.meaning(), method_card(kind).cost)
        for kind in kinds
    ]
    return grid(("method", "what it shows", "cost"), rows)


def entry(kind: type[Method]) -> str:
    """The entry of a method."""
    card = method_card(kind)
    facts = [
        ("Formula", f"`{kind.formula}`" if kind.formula else ""),
        ("Reference", kind.reference),
        ("Units", kind.units),
        ("Sign", SIGNS[card.sign]),
        ("On other grids", RESAMPLING[card.resampling]),
        ("Streams", "; ".join(card.streams)),
        ("Cost", card.cost),
        ("Needs", card.reason),
    ]
    lines = [listed(facts), *(f"- {text}" for text in card.holds)]
    own = [parameter for parameter in parameters(kind) if not parameter.shared]
    blocks = [f"### {kind.title()}", *prose(kind), "\n".join(lines)]
    return "\n\n".join([*blocks, table(own)] if own else blocks)


if __name__ == "__main__":
    main()
