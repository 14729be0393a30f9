"""Targets that analyses ask about: as a study names them, and the class that they are about."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.errors import ConfigError
from voxplain.targets import Target, parse_target


def _parsed(value: Any) -> Target | None:
    try:
        return None if value is None else parse_target(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


AskedTarget = Annotated[SerializeAsAny[Target] | None, BeforeValidator(_parsed)]
"""A target that is a parameter of an analysis, in every form in which a target can be written."""


def class_of(inputs: AnalysisInputs, analysis: str) -> int:
    """The class of the target.

    Raises:
        ConfigError: If the target is about none.
    """
    label = getattr(inputs.target, "label", None)
    if not isinstance(label, int):
        raise ConfigError(
            f"{analysis} is about a class, and the target {inputs.target} is about none; write "
            "target: {kind: pixelwise, label: 1}"
        )
    return label


def name_of(inputs: AnalysisInputs, label: int) -> str:
    """The name of a class, where the study gives one."""
    classes = inputs.model.classes or ()
    return classes[label] if label < len(classes) else f"class {label}"


def about_in_words(inputs: AnalysisInputs, target: Target) -> str:
    """What a target is about: the name of its class, where it is about one."""
    label = getattr(target, "label", None)
    return name_of(inputs, label) if isinstance(label, int) else str(target)
