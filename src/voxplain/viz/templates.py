"""The environment of the HTML templates."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from voxplain.viz import words


def template_environment(*packages: str) -> Environment:
    """An environment in which every value is escaped and an unknown name is an error.

    Args:
        packages: Packages with a folder ``templates``, searched before the one of this package.

    Returns:
        The environment, with filters for numbers, headings and settings.
    """
    loaders = [PackageLoader(package) for package in (*packages, "voxplain.viz")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "duration": words.duration,
        "heading": words.title,
        "sentence": words.sentence,
        "setting": words.setting,
    }
    return environment
