"""Errors that name their place, and warnings that are collected for the manifest."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from voxplain.errors import VoxplainError, VoxplainWarning


@contextlib.contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Puts a place, such as ``case p01``, in front of the text of an error."""
    try:
        yield
    except VoxplainError as error:
        raise type(error)(f"{place}: {error}") from error


@contextlib.contextmanager
def collected_warnings(texts: list[str]) -> Iterator[None]:
    """Adds the warnings of voxplain to ``texts``, each once, and passes on those of others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.simplefilter("always", VoxplainWarning)
        yield
    for warning in caught:
        text = str(warning.message)
        if not issubclass(warning.category, VoxplainWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        elif text not in texts:
            texts.append(text)
