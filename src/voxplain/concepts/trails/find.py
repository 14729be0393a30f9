"""Trails of a network: the strongest paths of links, and whether they carry the answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from voxplain.concepts.links.analysis import Links
from voxplain.concepts.trails.graph import LOGIT, ConceptGraph, concept_graph
from voxplain.concepts.trails.paths import Trail, best_trails
from voxplain.concepts.trails.validation import Validation, validate
from voxplain.engine.cohort import Cohort
from voxplain.models.model import Model


class TrailSettings(BaseModel):
    """Which trails are looked for, and how they are validated.

    Attributes:
        count: Strongest trails per class.
        surviving: Whether trails are made of surviving links only.
        measure: What links to classes are taken from.
        random_trails: Random trails that each is compared with.
        alpha: False discovery rate over all trails.
        seed: Of donors and random trails.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(default=5, ge=1)
    surviving: bool = True
    measure: str = Field(default=LOGIT, pattern="^(logit|dice)$")
    random_trails: int = Field(default=200, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class ValidatedTrail:
    """A trail and what it carries.

    Attributes:
        trail: The path.
        validation: What is left with it alone, and lost without it.
        links_survive: Whether random sets of units reach none of its links.
    """

    trail: Trail
    validation: Validation
    links_survive: bool

    @property
    def survives(self) -> bool:
        """Whether it is validated and all its links survive.

        The strongest path of any network, also of one with random weights, may carry more than
        random paths do; its links do not survive there.
        """
        return self.validation.validated and self.links_survive


@dataclass(frozen=True, eq=False)
class Trails:
    """The trails of an analysis.

    Attributes:
        graph: The concepts that they lead through.
        found: Class by class, the strongest first.
        links: What they are made of.
        settings: How they were found.
    """

    graph: ConceptGraph
    found: tuple[ValidatedTrail, ...]
    links: Links
    settings: TrailSettings

    @property
    def validated(self) -> tuple[ValidatedTrail, ...]:
        """Trails that carry more than random ones."""
        return tuple(each for each in self.found if each.validation.validated)

    @property
    def surviving(self) -> tuple[ValidatedTrail, ...]:
        """Validated trails of surviving links."""
        return tuple(each for each in self.found if each.survives)

    def caption(self, trail: Trail) -> str:
        """The trail in the form ``(Image) -> (concept, score) -> ... -> (class)``."""
        labels = [self.graph.graph.nodes[name]["label"] for name in (*trail.nodes, trail.output)]
        first = self.graph.layers[0] == "image"
        return " -> ".join(f"({label})" for label in ([] if first else ["Image"]) + labels)


def trails(
    model: Model | nn.Module,
    cohort: Cohort,
    links: Links,
    settings: TrailSettings | None = None,
    outputs: Sequence[str] = (),
) -> Trails:
    """The strongest trails to classes, each validated by interventions.

    Args:
        model: The network that the links were measured on.
        cohort: Cases; best others than those of the links.
        links: Measured links, with classes.
        settings: How.
        outputs: Names of the classes; all of the links if empty.

    Raises:
        ConfigError: If the links lead to no class, or the cohort is too small.
    """
    chosen = settings or TrailSettings()
    graph = concept_graph(links, chosen.measure, surviving=chosen.surviving)
    asked = outputs or graph.outputs
    paths = [trail for name in asked for trail in best_trails(graph, name, chosen.count)]
    validations = validate(
        Model.of(model),
        cohort,
        links,
        paths,
        random_trails=chosen.random_trails,
        replaced_by=links.settings.replaced_by,
        alpha=chosen.alpha,
        seed=chosen.seed,
    )
    found = tuple(
        ValidatedTrail(path, validation, _links_survive(graph, path))
        for path, validation in zip(paths, validations, strict=True)
    )
    return Trails(graph, found, links, chosen)


def _links_survive(graph: ConceptGraph, trail: Trail) -> bool:
    steps = itertools.pairwise((*trail.nodes, trail.output))
    return all(graph.graph[first][second]["survives"] for first, second in steps)
