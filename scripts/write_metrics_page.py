"""Writes `docs/metrics.md` from the registry.

Usage: `python scripts/write_metrics_page.py`. A new metric needs nothing: it brings its own entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markdown_page import anchor, grid, listed, prose, sized, table

from voxplain.attribution.describe.card import PICTURE, VOLUME
from voxplain.metrics import BaseMetric, metrics
from voxplain.metrics.card import (
    BETTER,
    FAMILIES,
    in_order,
    metric_card,
    parameters_of,
    range_in_words,
)

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
COMMAND = "python scripts/write_metrics_page.py"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    """The whole page, of the metrics of the package; those of plug-ins stay out."""
    kinds = [metrics.get(name) for name in metrics]
    chapters = in_order([kind for kind in kinds if kind.__module__.startswith("voxplain.")])
    blocks = [introduction(chapters)]
    for family, members in chapters.items():
        blocks += [f"## {family.capitalize()}", FAMILIES[family], overview(members)]
        blocks += [entry(kind) for kind in members]
    return "\n\n".join(blocks) + "\n"


def introduction(chapters: Mapping[str, Sequence[type[BaseMetric]]]) -> str:
    """What the entries say, and where each chapter is."""
    links = " · ".join(f"[{name.capitalize()}](#{anchor(name)})" for name in chapters)
    count = sum(map(len, chapters.values()))
    return f"""\
# Metrics

<!-- Made by `{COMMAND}`; changes by hand do not last. -->

{count} metrics. A study or a call names each of them, or gives its parameters as well:
`{{name: deletion, levels: 16}}`. No single number ranks methods: metrics disagree, and every table
shows controls beside the maps (a random map, edges, the image itself, a centered blob, and the
reference mask where there is one). A method is better than a control only if it is so on the same
cases.

{links}

**Every score** is of one image and one map, whatever else is in the call; only `consistency`,
`sufficiency` and, for classifiers, `calibration` compare cases, and are computed once all cases are
there. A score that does not exist (a constant map, no reference mask, no other network) is NaN with
a reason, never 0 or 1. Maps are ranked by their declared sign, channels summed.

**Cost** is the number of forwards for one image with the defaults, a picture of {sized(PICTURE)} /
a volume of {sized(VOLUME)}. Forwards that several metrics need are run once. *Per map* counts for
each map and control, *for all maps* once. *Explanations* are repeated by all methods, which share
their streams.

**Reference.** Metrics of localization compare with the `reference` of the case, or with the mask
that `voxplain evaluate --reference` names; in Python with the mask of a `Case`. The class that is
right for a whole image is the `truth` of the case. Images of one `patient` are never compared with
each other."""


def overview(kinds: Sequence[type[BaseMetric]]) -> str:
    """One line per metric."""
    rows = [
        (f"[`{kind.title()}`](#{kind.title()})", kind.meaning(), BETTER[kind.direction])
        for kind in kinds
    ]
    return grid(("metric", "what it measures", "better"), rows)


def entry(kind: type[BaseMetric]) -> str:
    """Everything about one metric."""
    facts = [
        ("Better", BETTER[kind.direction]),
        ("Range", range_in_words(kind)),
        ("By chance", kind.chance),
        ("Reference", kind.reference),
        ("Cost", metric_card(kind).cost),
    ]
    parts = [f"### {kind.title()}", *prose(kind), listed(facts)]
    own = parameters_of(kind)
    return "\n\n".join([*parts, table(own)] if own else parts)


if __name__ == "__main__":
    main()
