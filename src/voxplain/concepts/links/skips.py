"""Skip connections: routes around analyzed layers, found by intervention or named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from voxplain.concepts.links.donors import Donors, ReplacedBy
from voxplain.concepts.links.nodes import OUTPUT, Edge, in_order
from voxplain.concepts.links.significance import ROUNDING
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.intervened_rows import InterventionRows, Row
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, nearest
from voxplain.models.model import Model

MOST_LAYERS = 32
"""Layers among which skip connections are looked for: 496 pairs, and 31 with the output."""
CASES = 2
"""Cases that are tried: a rectifier may close a route in one of them."""


def find_skips(
    model: Model | nn.Module,
    cohort: Cohort,
    layers: Sequence[Tap],
    *,
    to_output: bool = True,
    replaced_by: ReplacedBy = "resample",
    seed: int = 0,
) -> tuple[Edge, ...]:
    """The pairs of layers with a route that passes through none of the layers between them.

    The first layer of a pair is replaced while every layer between the two keeps its value on the
    unchanged image. If the second layer changes, by more than rounding, there is such a route. Each
    pair takes a forward for the first case, and another one for a second case if it did not
    change in the first. Names of layers and the code of the network play no part.

    Args:
        model: The network, without windows.
        cohort: The cases.
        layers: The analyzed layers, in any order; :data:`MOST_LAYERS` at most.
        to_output: Whether routes to the output around the last layers are looked for as well.
        replaced_by: What values become, as for the links.
        seed: Of the donors.

    Returns:
        An edge for every pair, the layers between it held, in the order of the network.

    Raises:
        ConfigError: If there are too many layers, or no other case to take values from.
        ModelError: If a layer does not exist, or the network has windows.
    """
    network = Model.of(model)
    if len({*layers}) > MOST_LAYERS:
        raise ConfigError(
            f"skip connections are looked for among {MOST_LAYERS} layers at most, and "
            f"{len({*layers})} are analyzed; name the pairs of layers"
        )
    ordered = in_order(layers, Context.open(network, next(iter(cohort)).image))
    open_pairs = list(_around(ordered, to_output))
    if not open_pairs:
        return ()
    donors = Donors(network, cohort, ordered, replaced_by, seed)
    found: set[Edge] = set()
    for case in cohort.only(cohort.ids[:CASES]):
        waiting = [edge for edge in open_pairs if edge not in found]
        if waiting:
            found |= _Probe(network, case, donors, ordered).changed(waiting)
    return tuple(edge for edge in open_pairs if edge in found)


def named_skips(
    pairs: Sequence[tuple[str, str]], layers: Sequence[Tap], context: Context
) -> tuple[Edge, ...]:
    """Edges for pairs of layers, the analyzed layers between them held.

    Args:
        pairs: Paths of an earlier and a later layer; ``output`` is the output, unless a layer is
            called so.
        layers: The analyzed layers, in any order.
        context: The network and one image.

    Raises:
        ConfigError: If a layer is not analyzed, or a pair does not go around another layer.
        ModelError: With the nearest names, if a layer does not exist.
    """
    ordered = in_order(layers, context)
    known = {(edge.source.path, _name(edge.target)): edge for edge in _around(ordered, True)}
    names = [*(tap.path for tap in ordered), OUTPUT]
    for pair in pairs:
        for name in pair:
            if name not in names:
                raise ConfigError(
                    f"skips: {name!r} is not an analyzed layer; {nearest(name, names)}"
                )
        if pair not in known:
            raise ConfigError(
                f"skips: {pair[0]} to {pair[1]} goes around no analyzed layer; name an earlier "
                f"layer, then a later one with others between them, of {', '.join(names)}"
            )
    return tuple(known[pair] for pair in dict.fromkeys(pairs))


def _around(ordered: Sequence[Tap], to_output: bool) -> list[Edge]:
    """An edge for every two layers with others between them."""
    ends: list[Tap | None] = [*ordered, *([None] if to_output else [])]
    return [
        Edge(source, ends[end], hold=tuple(ordered[start + 1 : end]))
        for start, source in enumerate(ordered)
        for end in range(start + 2, len(ends))
    ]


def _name(tap: Tap | None) -> str:
    return OUTPUT if tap is None else tap.path


class _Probe:
    """Replaces layers of one case, and looks which others change."""

    def __init__(
        self, model: Model, case: CohortCase, donors: Donors, layers: Sequence[Tap]
    ) -> None:
        self._layers, self._context = tuple(layers), Context.open(model, case.image)
        self._donor = donors.of(case, self._context)
        self._clean = dict(observe(self._context, layers).values)

    def changed(self, edges: Sequence[Edge]) -> set[Edge]:
        """The edges whose end changes while the layers between are held."""
        found: set[Edge] = set()
        rows: list[Row] = [(), *map(self._row, edges)]
        ends = tuple(dict.fromkeys(edge.target for edge in edges if edge.target is not None))
        to_end = any(edge.target is None for edge in edges)
        clean: list[Tensor] = []

        def seen(numbers: range, values: Mapping[Tap, Tensor], output: Tensor | None) -> None:
            if output is not None and not clean:
                clean.append(output[0])
            for row, number in enumerate(numbers):
                if number == 0:
                    continue
                edge = edges[number - 1]
                if edge.target is not None:
                    before, after = self._clean[edge.target], values[edge.target][row]
                else:
                    assert output is not None
                    before, after = clean[0], output[row]
                if _differs(before, after):
                    found.add(edge)

        InterventionRows(self._context, self._layers).run(rows, ends, seen, to_end=to_end)
        return found

    def _row(self, edge: Edge) -> Row:
        replaced = Replacement(edge.source, UnitSet(), self._donor[edge.source], outside=True)
        held = (Replacement(tap, UnitSet(), self._clean[tap], outside=True) for tap in edge.hold)
        return (replaced, *held)


def _differs(before: Tensor, after: Tensor) -> bool:
    """Whether two activations differ by more than rounding."""
    before, after = before.double(), after.double()
    return float((after - before).square().sum()) > ROUNDING * float(before.square().sum())
