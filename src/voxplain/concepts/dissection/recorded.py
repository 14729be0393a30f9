"""What the record of a dissection says of each concept and each unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.concepts.bank.bank import ConceptBank
from voxplain.concepts.dissection.sweeps import Sweeps
from voxplain.records.dissection import ConceptDissected, UnitDissected


def concepts_recorded(sweeps: Sweeps, bank: ConceptBank) -> tuple[ConceptDissected, ...]:
    """Every concept of a bank with its share and number of the held-out cases."""
    sizes, totals = np.stack(sweeps.sizes), np.stack(sweeps.totals)
    numbers = {concept.name: number for number, concept in enumerate(sweeps.concepts)}
    images = {concept.name: number for number, concept in enumerate(bank.images)}
    found = []
    for concept in bank:
        facts = {
            "name": concept.name,
            "kind": concept.kind,
            "status": concept.status,
            "provenance": concept.provenance,
            "group": concept.group,
        }
        if concept.kind == "mask":
            number = numbers[concept.name]
            size, total = sizes[:, number], totals[:, number]
            in_selection = max(
                (state.selection.size(number)[0] for state in sweeps.groups.values()), default=0.0
            )
            found.append(_as_mask(facts, size, total, in_selection))
        else:
            holds = np.stack(sweeps.images.holds)[:, images[concept.name]]
            found.append(_as_image(facts, holds[np.array(sweeps.images.held_out)]))
    return tuple(found)


def _as_mask(
    facts: dict[str, Any], size: NDArray[np.float64], total: NDArray[np.float64], selected: float
) -> ConceptDissected:
    known = total > 0
    share = float(size.sum() / total.sum()) if known.any() else None
    remark = ""
    if not known.any():
        remark = "it is not known for any held-out case"
    elif not size.any():
        remark = "it is absent from all held-out cases"
    elif share == 1:
        remark = "it fills the whole region of interest"
    elif not selected:
        remark = "it is absent from all cases that thresholds are chosen on"
    return ConceptDissected(
        **facts,
        share=share,
        cases=int(known.sum()),
        present=int((size > 0).sum()),
        remark=remark,
    )


def _as_image(facts: dict[str, Any], holds: NDArray[np.float64]) -> ConceptDissected:
    known = holds[np.isfinite(holds)]
    remark = ""
    if not len(known):
        remark = "it is not known for any held-out case"
    elif min((known == 1).sum(), (known == 0).sum()) < 2:
        remark = "fewer than two held-out images have it, or fewer than two lack it"
    share = float(known.mean()) if len(known) else None
    return ConceptDissected(
        **facts, share=share, cases=len(known), present=int(known.sum()), remark=remark
    )


def units_recorded(sweeps: Sweeps) -> tuple[UnitDissected, ...]:
    """Every unit with the cases in which it is most and least active."""
    found = []
    for group, state in sweeps.groups.items():
        for index, name in enumerate(state.names):
            top, bottom = state.exemplars.of(index)
            low, high = float(state.edges[index, 0]), float(state.edges[index, -1])
            remark = "" if low < high else f"it is constant ({low:.3g}) on all selection cases"
            found.append(
                UnitDissected(
                    name=name,
                    origin=group.origin,
                    layer=group.layer,
                    index=index,
                    remark=remark,
                    top=top,
                    bottom=bottom,
                )
            )
    return tuple(found)
