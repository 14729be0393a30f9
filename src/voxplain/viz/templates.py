"""The environment of the HTML templates, and vendored static files."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from voxplain.version import __version__
from voxplain.viz import words


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The template environment: everything is escaped, an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("voxplain.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "number": words.number,
        "percent": words.percent,
        "duration": words.duration,
        "heading": words.title,
        "sentence": words.sentence,
        "setting": words.setting,
    }
    found.globals["static"] = static
    found.globals["version"] = __version__
    return found


@lru_cache(maxsize=8)
def static(name: str) -> Markup:
    """The text of a file of ours that goes into the page as it is."""
    text = files("voxplain.report").joinpath("static", name).read_text(encoding="utf-8")
    return Markup(text)
