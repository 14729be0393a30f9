"""Writes `docs/methods.md` from the registry.

Usage: `python scripts/write_methods_page.py`. A new method needs nothing: it brings its own entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markdown_page import anchor, grid, listed, prose, sized, table

from voxplain.attribution.describe.card import CHANNELS, PICTURE, VOLUME, method_card
from voxplain.attribution.describe.families import Family, in_order
from voxplain.attribution.describe.parameters import parameters
from voxplain.attribution.methods import methods
from voxplain.engine.method import Method

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
    """The whole page, of the methods of the package; those of plug-ins stay out."""
    kinds = [methods.get(name) for name in methods]
    own = [kind for kind in kinds if kind.__module__.startswith("voxplain.")]
    families = in_order(kind.family for kind in own)
    blocks = [introduction(own, families)]
    for each in families:
        members = [kind for kind in own if kind.family == each.name]
        blocks += [f"## {each.title}", each.idea, overview(members)]
        blocks += [entry(kind) for kind in members]
    return "\n\n".join(blocks) + "\n"


def introduction(kinds: Sequence[type[Method]], families: Sequence[Family]) -> str:
    """What the entries say, and where each family is."""
    picture, volume = sized(PICTURE), sized(VOLUME)
    links = " · ".join(f"[{each.title}](#{anchor(each.title)})" for each in families)
    shared = [each for each in parameters(kinds[0]) if each.shared]
    return f"""\
# Methods

<!-- Made by `{COMMAND}`; changes by hand do not last. -->

{len(kinds)} methods. Each can be asked for by its name, or with parameters:
`{{name: integrated_gradients, steps: 16}}`.

{links}

**Symbols.** x is the image, b a baseline, S(x) the score that is explained, g its gradient at the
image; A and G are the activation of a layer and the gradient there; a mask m keeps where it is 1.
Maps are raw: signed where the method is, on all channels, without any scaling.

**Cost** is counted for one image with the defaults: a picture of {picture} / a volume of
{volume}, with one channel and a network whose last feature layer has {CHANNELS} channels. A
pass is forward and backward. Methods that ask for the same stream share its passes, and what
would take more than `run.max_passes` is refused before anything starts.

**Windows.** With sliding windows most maps are equal to what the network would give if the whole
volume fitted it; where products or rectifiers see the gradient of one window at a time, they are
near it. Methods of masks compute only the windows again that a mask touches.

Every method takes these:

{table(shared)}"""


def overview(kinds: Sequence[type[Method]]) -> str:
    """One line per method."""
    rows = [
        (f"[`{kind.title()}`](#{kind.title()})", kind.meaning(), method_card(kind).cost)
        for kind in kinds
    ]
    return grid(("method", "what it shows", "cost"), rows)


def entry(kind: type[Method]) -> str:
    """Everything about one method."""
    shown = method_card(kind)
    facts = [
        ("Formula", f"`{kind.formula}`" if kind.formula else ""),
        ("Reference", kind.reference),
        ("Units", kind.units),
        ("Sign", SIGNS[shown.sign]),
        ("On other grids", RESAMPLING[shown.resampling]),
        ("Streams", "; ".join(shown.streams)),
        ("Cost", shown.cost),
        ("Needs", shown.reason),
    ]
    lines = [listed(facts), *(f"- {text}" for text in shown.holds)]
    own = [each for each in parameters(kind) if not each.shared]
    parts = [f"### {kind.title()}", *prose(kind), "\n".join(lines)]
    return "\n\n".join([*parts, table(own)] if own else parts)


if __name__ == "__main__":
    main()
