"""Combinations of case, model and target, and the tasks that explain them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxplain.attribution.describe.cost import StreamEstimate
from voxplain.engine.method import Method
from voxplain.targets import Target

# Raised whenever the same request would give another map, or another score.
RESULT_VERSION = 2


@dataclass(frozen=True)
class Combination:
    """One image, one network, one question: what a task explains.

    Attributes:
        case: Id of the case.
        model: Name of the network.
        target: What is explained, with the files of this case.
        named: The same without file names, for everything that is written.
        facts: Everything else that determines the result: hashes, preprocessing, precision.
        seed: Seed of the study.
        patient: Whose image it is; empty where the case stands for itself.
    """

    case: str
    model: str
    target: Target
    named: Target
    facts: Mapping[str, Any]
    seed: int
    patient: str = ""

    @property
    def slug(self) -> str:
        """The target in file names."""
        return self.named.slug

    @property
    def key(self) -> str:
        """Hash of everything that determines the prediction."""
        return digest({**self.facts, "case": self.case, "target": _dumped(self.named)})

    @property
    def draw_seed(self) -> int:
        """Seed of the random draws.

        It does not depend on the methods: one more of them leaves the others as they are.
        """
        return int(digest([self.seed, self.key])[:8], 16)

    def method_key(self, method: Method) -> str:
        """Hash of everything that determines the maps of a method."""
        return digest([self.key, self.seed, _dumped(method)])


@dataclass(frozen=True)
class Task:
    """A group of methods that share a stream, on one subject.

    Attributes:
        key: Hash of everything that determines the result.
        combination: What is explained.
        methods: The methods, by the hash of what determines their maps.
        passes: Passes through the network, as estimated.
        forwards: How many of them are forwards without a backward pass.
        streams: The streams in words.
    """

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
        """The task of these methods, which share streams, on a subject."""
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
    def labels(self) -> list[str]:
        """The keys of the methods in results and file names."""
        return [method.key for method in self.methods.values()]

    def without(self, done: set[str]) -> Task:
        """The task with only the methods whose maps are missing."""
        missing = {key: method for key, method in self.methods.items() if key not in done}
        return replace(self, methods=missing)


def digest(facts: Any) -> str:
    """SHA-256 of facts in their canonical JSON form."""
    text = json.dumps([RESULT_VERSION, facts], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _dumped(part: Method | Target) -> dict[str, Any]:
    return part.model_dump(mode="json")
