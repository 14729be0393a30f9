"""The class that a target of a study is about, for analyses of one class."""

from __future__ import annotations

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.errors import ConfigError
from voxplain.targets import Target


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
