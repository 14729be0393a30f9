"""The thirty maps of the INFORM table share what they can."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

from voxplain.attribution import parse_method
from voxplain.engine.context import Context
from voxplain.engine.execution.session import Session
from voxplain.models.model import Model
from voxplain.targets import parse_target
from voxplain.zoo import unet3d

FILE = Path(__file__).parents[2] / "studies" / "inform_demo" / "methods.py"


def methods_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inform_methods", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_thirty_maps_take_the_passes_of_their_streams() -> None:
    inform = methods_file()
    chosen = [parse_method(row) for row in inform.methods()]
    assert len({method.key for method in chosen}) == 30
    image, references = torch.rand(1, 1, 8, 8, 8), torch.rand(3, 1, 8, 8, 8)
    target = parse_target({"kind": "volume", "label": 3})
    model = Model.of(unet3d(1, 4).eval())
    session = Session.open(Context.open(model, image), chosen, target, references)
    assert session.planned == inform.passes() == 250


def test_regions_sum_up_the_map_beside_them() -> None:
    rows = {row["label"]: row for row in methods_file().methods()}
    for label, row in rows.items():
        if not label.startswith("XRAI "):
            inner = rows[f"XRAI {label}"]["of"]
            assert {**inner, "label": label} == row
            assert row["abs"]
