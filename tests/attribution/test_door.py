"""`voxplain.attribution` is all that a plug-in with a method imports."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import voxplain.attribution as door
import voxplain.engine

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin" / "src"


BASES = ("Sampler", "Reducer", "Rule", "MaskSampler", "MaskReducer", "Fill")


def _leaves(base: type) -> set[type]:
    """The public classes of the engine that derive from a base and are no bases themselves."""
    subclasses = base.__subclasses__()
    if not subclasses:
        is_public = not base.__name__.startswith("_")
        return {base} if is_public and base.__module__.startswith("voxplain.engine") else set()
    return set().union(*map(_leaves, subclasses))


@pytest.mark.parametrize("base", BASES)
def test_everything_that_requests_are_made_of_is_there(base: str) -> None:
    for module in pkgutil.walk_packages(voxplain.engine.__path__, "voxplain.engine."):
        importlib.import_module(module.name)
    leaves = _leaves(getattr(door, base))
    assert leaves
    missing = [kind for kind in leaves if getattr(door, kind.__name__, None) is not kind]
    assert not missing


def test_every_promised_name_is_there() -> None:
    assert len(set(door.__all__)) == len(door.__all__)
    assert all(hasattr(door, name) for name in door.__all__)


def test_the_example_of_a_plug_in_imports_nothing_else() -> None:
    (file,) = EXAMPLE.glob("*/__init__.py")
    imported = {
        node.module
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxplain")
    }
    assert imported == {"voxplain.attribution"}
