"""Networks of equal weights that are not the same network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.loading import ModelSpec, load_network
from voxplain.models.model import Model
from voxplain.study.planning.identity import definition_sha256, fingerprint

CODE = """
import torch
from torch import nn
from beside import scale


class Net(nn.Module):
    def __init__(self, act="relu"):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.act = {"relu": nn.ReLU(), "tanh": nn.Tanh()}[act]

    def forward(self, x):
        return self.act(self.first(scale(x)))


def build(act="relu"):
    return Net(act)


def other(act="relu"):
    return Net(act)
"""
BESIDE = "def scale(x):\n    return x\n"


def definition(folder: Path, factory: str = "nets.py:build", **arguments: object) -> str:
    sys.modules.pop("beside", None)
    spec = ModelSpec(factory=factory, arguments=arguments)
    return definition_sha256(spec, load_network(spec, trust=True, base=folder), folder)


def written(folder: Path, code: str = CODE, beside: str = BESIDE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "nets.py").write_text(code)
    (folder / "beside.py").write_text(beside)
    return folder


def test_factory_arguments_and_code_define_a_network(tmp_path: Path) -> None:
    first = definition(written(tmp_path / "one"))
    assert definition(written(tmp_path / "two")) == first  # a moved file is the same file
    assert definition(tmp_path / "one", act="tanh") != first
    assert definition(tmp_path / "one", "nets.py:other") != first
    changed = CODE.replace("self.act(self.first(scale(x)))", "self.act(self.first(scale(x)) / 2)")
    assert definition(written(tmp_path / "three", changed)) != first
    assert definition(written(tmp_path / "four", beside=BESIDE.replace("x\n", "2 * x\n"))) != first


def test_installed_classes_are_part_of_the_definition(tmp_path: Path) -> None:
    specs = [ModelSpec(factory=f"voxplain.zoo:unet{rank}d") for rank in (2, 3)]
    first, second = (
        definition_sha256(spec, load_network(spec, base=tmp_path), tmp_path) for spec in specs
    )
    assert first != second


class Answer(nn.Module):
    """A linear answer, with a number that is no parameter."""

    def __init__(self, factor: float, noise: float = 0.0) -> None:
        super().__init__()
        self.factor, self.noise = factor, noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x + self.noise * torch.rand_like(x)


@pytest.mark.parametrize("shape", [(1, 9, 7), (2, 6, 5, 7)])
def test_the_fingerprint_is_of_the_answer(shape: tuple[int, ...]) -> None:
    first = fingerprint(Model(Answer(1.0)), shape)
    assert fingerprint(Model(Answer(1.0)), shape) == first
    assert fingerprint(Model(Answer(1.0 + 1e-7)), shape) == first  # as another machine rounds
    for other in (Answer(1.01), Answer(-1.0), Answer(0.0)):
        assert fingerprint(Model(other), shape) != first


def test_a_random_network_has_one_fingerprint_and_moves_no_generator() -> None:
    before = torch.get_rng_state()
    first = fingerprint(Model(Answer(1.0, noise=1.0)), (1, 8, 8))
    assert fingerprint(Model(Answer(1.0, noise=1.0)), (1, 8, 8)) == first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("moved", [lambda x: x.roll(3, -1), lambda x: x.flip(1)])
def test_places_and_channels_count(moved: object) -> None:
    class Moved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values = torch.cat([x.abs().cumsum(-1), 2 * x], 1)
            return moved(values) if self.moves else values  # type: ignore[operator]

    one, two = Moved().eval(), Moved().eval()
    one.moves, two.moves = False, True
    assert fingerprint(Model(one), (1, 8, 8)) != fingerprint(Model(two), (1, 8, 8))


def test_a_network_that_does_not_fit_is_an_error_of_voxplain() -> None:
    with pytest.raises(ModelError, match="fails on inputs of shape"):
        fingerprint(Model(nn.Conv2d(3, 2, 3)), (1, 8, 8))
