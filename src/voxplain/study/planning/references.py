"""Whether the methods of a study have as many other images to compare with as they need."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from voxplain.attribution.describe.card import needs_references
from voxplain.engine.context import Context
from voxplain.engine.method import Method
from voxplain.engine.stream_io import FEWEST_REFERENCES, TooFewReferencesError
from voxplain.errors import ConfigError, VoxplainWarning


@dataclass(eq=False)
class ReferenceCount:
    """The references that cases have; an image is none for itself.

    Attributes:
        sha256: Hashes of the images that methods compare with.
    """

    sha256: Sequence[str]
    _most: dict[str, int] = field(default_factory=dict)
    _alone: set[tuple[str, int, tuple[int, ...]]] = field(default_factory=set)

    def count(self, methods: Sequence[Method], image: str, context: Context) -> None:
        """Notes how many a case has, for the methods that cannot do without.

        Args:
            methods: Those of the study.
            image: Hash of the image of the case.
            context: The network and the image.
        """
        others = sum(reference != image for reference in self.sha256)
        for method in methods:
            if method.key in self._most or self._is_needed(method, context):
                most = self._most.get(method.key, 0)
                self._most[method.key] = max(most, others)

    def require(self) -> None:
        """Says which methods have too few references for every case; their tasks fail.

        Raises:
            ConfigError: If the study names no references at all.
        """
        for method, most in self._most.items():
            text = f"references: {method}: {TooFewReferencesError(most)}"
            if not self.sha256:
                raise ConfigError(text)
            if most < FEWEST_REFERENCES:
                warnings.warn(text, VoxplainWarning, stacklevel=2)

    def _is_needed(self, method: Method, context: Context) -> bool:
        """Whether a method compares with other images; asked once per network and image size."""
        kind = (method.key, id(context.model.network), tuple(context.shape))
        if kind in self._alone:
            return False
        needed = needs_references(method, context)
        if not needed:
            self._alone.add(kind)
        return needed
