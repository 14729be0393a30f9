"""Combinations of case, model and target, and the tasks that explain them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from voxplain.attribution.describe.cost import StreamEstimate
from voxplain.engine.method import Method
from voxplain.targets import Target

TaskKind = Literal["maps", "metrics", "analysis"]
"""What a task makes: maps, the scores of maps, or an analysis of a network."""

CombinationId = tuple[str, str, str]
"""Id of a case, name of a model, slug of a target."""

TaskId = tuple[str, ...]
"""Kind, case, model and target of a task; of explanations their key too."""

# Raised whenever equal tasks would give other maps or scores; for one method, its revision is.
RESULT_VERSION = 3

# Never raised: a seed gives the same noise and masks in every version.
_DRAW_VERSION = 2


@dataclass(frozen=True)
class Combination:
    """One case, one network and one target: what a task explains.

    Attributes:
        case: Id of the case.
        model: Name of the network.
        target: What is explained, with the files of this case.
        named: The same without file names, for everything that is written.
        facts: Everything else that determines the result: hashes, preprocessing, precision.
        seed: Seed of the study.
        patient: Id of the patient; empty where the study names none.
        network: What tells the network apart from others of equal weights: its name, the names of
            its classes, its code, its answer to a fixed pattern.
    """

    case: str
    model: str
    target: Target
    named: Target
    facts: Mapping[str, Any]
    seed: int
    patient: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The target in file names."""
        return self.named.slug

    @property
    def id(self) -> CombinationId:
        """Case, model and target by their names."""
        return (self.case, self.model, self.slug)

    @property
    def key(self) -> str:
        """Hash of everything that determines the prediction."""
        return digest([self._content, self.network])

    @property
    def parts(self) -> dict[str, str]:
        """Short hashes of what determines the results, by what a person would call it."""
        model = dict(self.facts.get("model", {}))
        network = dict(self.network)
        parts = {
            "image": self.facts.get("image"),
            "preprocessing": self.facts.get("preprocess"),
            "weights": model.pop("weights_sha256", None),
            "network settings": model,
            "classes": network.pop("classes", None),
            "answer of the network": network.pop("fingerprint", None),
            "network code": network,
            "references": self.facts.get("references"),
            "files of the target": self.facts.get("files"),
            "seed": self.seed,
            "version of results": RESULT_VERSION,
        }
        return {name: digest(part)[:12] for name, part in parts.items()}

    @property
    def draw_seed(self) -> int:
        """Seed of the random draws.

        It does not depend on the methods, so that adding one leaves the maps of the others as they
        are; nor on what the network is called.
        """
        content = digest(self._content, _DRAW_VERSION)
        return int(digest([self.seed, content], _DRAW_VERSION)[:8], 16)

    @property
    def _content(self) -> dict[str, Any]:
        return {**self.facts, "case": self.case, "target": _dumped(self.named)}

    def method_key(self, method: Method) -> str:
        """Hash of everything that determines the maps of a method."""
        revised = {type(each).__name__: each.revision for each in _with_inner(method)}
        revised = {name: revision for name, revision in revised.items() if revision > 1}
        return digest([self.key, self.seed, _dumped(method), *([revised] if revised else [])])


@dataclass(frozen=True)
class Task:
    """The explanation of a combination by a group of methods that share a stream.

    Attributes:
        key: Hash of everything that determines the maps.
        combination: What is explained.
        methods: The methods, by the hash of what determines their maps.
        passes: Estimated passes through the network.
        forwards: How many of them are forwards without a backward pass.
        streams: The streams in words.
    """

    kind: ClassVar[TaskKind] = "maps"

    key: str
    combination: Combination
    methods: Mapping[str, Method]
    passes: int
    forwards: int
    streams: tuple[str, ...]

    @classmethod
    def of(
        cls, combination: Combination, methods: Sequence[Method], streams: Sequence[StreamEstimate]
    ) -> Task:
        """The task of methods that share these streams."""
        keyed = {combination.method_key(method): method for method in methods}
        return cls(
            key=digest(sorted(keyed)),
            combination=combination,
            methods=keyed,
            passes=sum(stream.passes for stream in streams),
            forwards=sum(stream.passes for stream in streams if stream.forwards_only),
            streams=tuple(stream.description for stream in streams),
        )

    @property
    def place(self) -> CombinationId:
        """Case, network and target by their names."""
        return self.combination.id

    @property
    def target_in_words(self) -> str:
        """What is explained."""
        return str(self.combination.named)

    @property
    def id(self) -> TaskId:
        """What tells it from every other task of the run."""
        return (self.kind, *self.combination.id, self.key)

    @property
    def labels(self) -> list[str]:
        """The keys of the methods in results and file names."""
        return [method.key for method in self.methods.values()]

    def without(self, done: Collection[str]) -> Task:
        """The same task without the methods whose maps are done, which are given by hash."""
        missing = {key: method for key, method in self.methods.items() if key not in done}
        return replace(self, methods=missing)


def digest(facts: Any, version: int = RESULT_VERSION) -> str:
    """SHA-256 of a version and facts in their canonical JSON form."""
    text = json.dumps([version, facts], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_inner(method: Method) -> Iterator[Method]:
    """A method, and those that it is around."""
    yield method
    inner = getattr(method, "of", None)
    if isinstance(inner, Method):
        yield from _with_inner(inner)


def _dumped(declaration: Method | Target) -> dict[str, Any]:
    return declaration.model_dump(mode="json")
