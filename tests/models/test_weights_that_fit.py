"""Checkpoints with several sets of weights for one network: one has to be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain.errors import ModelError
from voxplain.loading import ModelSpec, load_network
from voxplain.models.loading.fitting import load_weights


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def _two() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first = _network().state_dict()
    return first, {name: value + 1 for name, value in first.items()}


def _by_prefix() -> dict[str, Any]:
    first, second = _two()
    prefixed = {f"model.{name}": value for name, value in first.items()}
    prefixed |= {f"ema_model.{name}": value for name, value in second.items()}
    return {"state_dict": prefixed}


def _beside() -> dict[str, Any]:
    first, second = _two()
    return {"state_dict": first, "other": {"state_dict_ema": second}, "epoch": 3}


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (_by_prefix(), ["part: state_dict and prefix: model.", "prefix: ema_model."]),
        (_beside(), ["part: state_dict;", "part: other/state_dict_ema"]),
    ],
    ids=["prefixes", "entries"],
)
def test_two_sets_of_weights_are_refused_by_name(
    checkpoint: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        load_weights(_network(), checkpoint, "two.pt")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("checkpoint", "setting", "added"),
    [
        (_by_prefix(), {"prefix": "model."}, 0),
        (_by_prefix(), {"prefix": "ema_model."}, 1),
        (_beside(), {"part": "state_dict"}, 0),
        (_beside(), {"part": "other/state_dict_ema"}, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:weights two.pt")
def test_a_setting_chooses_one(
    tmp_path: Path, checkpoint: dict[str, Any], setting: dict[str, str], added: int
) -> None:
    torch.save(checkpoint, tmp_path / "two.pt")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))\n"
    )
    spec = ModelSpec(factory="net.py:build", weights=Path("two.pt"), **setting)  # type: ignore[arg-type]
    loaded = load_network(spec, trust=True, base=tmp_path).state_dict()
    expected = _two()[added]
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def test_equal_copies_and_a_part_alone_need_no_choice() -> None:
    first, _ = _two()
    load_weights(_network(), {"model": first, "copy": dict(first)}, "twice.pt")
    load_weights(_network(), {"optimizer": {"state": {}}, "model": first}, "one.pt")


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match=r"no part 'state_dict_emma'.*state_dict_ema"):
        load_weights(_network(), {"state_dict_ema": _two()[0]}, "x.pt", part="state_dict_emma")
