"""How many points go through the network at once, and that it changes no result."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import voxplain as vx
from voxplain.engine.memory import BackwardBudget
from voxplain.models.model import lone_volume_is_slow

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A small segmenter that records the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Softplus(), nn.Conv3d(4, 2, 3))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.layers(x).flatten(2).mean(dim=2)


def test_small_points_start_in_batches() -> None:
    assert BackwardBudget(CPU, point=2**10).size == 8
    assert BackwardBudget(CPU, point=2**20).size == 2
    assert BackwardBudget(CPU, point=2**30).size == 1
    assert BackwardBudget(CPU, limit=10**6, point=2**20).size == 1


def test_a_cpu_takes_32_mib_and_no_fewer_than_two_points() -> None:
    for side, expected in ((2**20, 8), (2**25, 2)):  # 4 MiB, 128 MiB per point
        budget = BackwardBudget(CPU)
        with budget.measured(1):
            torch.zeros(side, requires_grad=True).exp()
        assert budget.size == expected


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_do_not_count(transposed: bool) -> None:
    weight = nn.Parameter(torch.ones(100, 100), requires_grad=False)
    points = torch.ones(1, 100, requires_grad=True)
    budget = BackwardBudget(CPU)
    with budget.measured(1):
        (points @ (weight.T if transposed else weight)).sum()
    assert budget.bytes_per_point == 1


@pytest.mark.parametrize(
    ("points", "slow"),
    [
        (torch.zeros(1, 1, 8, 8, 8), True),
        (torch.zeros(2, 1, 8, 8, 8), False),
        (torch.zeros(1, 1, 64, 64, 64), False),
        (torch.zeros(1, 1, 8, 8), False),
        (torch.zeros(1, 1, 8, 8, 8, dtype=torch.float64), False),
    ],
)
def test_lone_small_volumes_are_slow(points: Tensor, slow: bool) -> None:
    assert lone_volume_is_slow(points) is slow


@pytest.mark.parametrize("method", ["saliency", "layer_conductance", "deep_lift"])
def test_a_lone_volume_is_sent_twice_and_gets_the_same_map(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, declaration = torch.rand(1, 1, 7, 7, 7), {"name": method}
    if method == "layer_conductance":
        declaration |= {"layers": "layers.1", "steps": 3}
    network = Counting().eval()
    twice = vx.explain(network, image, declaration, 1)[method]
    tried = [1, 2]  # one image alone, and beside another
    followed = [1] if method == "layer_conductance" else []  # once, to find the layers
    start = len(tried + followed)
    assert network.batches[:start] == tried + followed
    assert min(network.batches[start:]) == 2
    for module in ("engine.passes.whole", "models.model"):
        monkeypatch.setattr(f"voxplain.{module}.lone_volume_is_slow", lambda _: False)
    network = Counting().eval()
    once = vx.explain(network, image, declaration, 1)[method]
    assert network.batches[:3] == [*tried, 1]
    assert twice.map.shape == once.map.shape
    torch.testing.assert_close(twice.map, once.map, rtol=1e-5, atol=1e-7)
    assert twice.stats.scores == pytest.approx(once.stats.scores, rel=1e-5)
    assert twice.stats.passes == once.stats.passes


_FAULTS = """
import resource, torch
from voxplain.engine.memory import keep_allocator_pages
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.ones(2**20) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
keep_allocator_pages()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep what they get")
def test_memory_is_kept_from_pass_to_pass() -> None:
    """Four blocks of 4 MiB are 4096 pages, which would be requested again in every pass."""
    completed = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, check=True)
    assert int(completed.stdout) < 1000  # without it tens of thousands, on most layouts of a heap


def test_a_saved_storage_is_counted_once_and_whole() -> None:
    """exp saves its result, which the product saves twice, and the last one a part of it."""
    budget = BackwardBudget(torch.device("cpu"), limit=2**20)
    x = torch.rand(1000, requires_grad=True)
    with budget.measured(4):
        y = x.exp()
        y * y
        y[:10] * y[10:20]
    assert budget.bytes_per_point == 4000 // 4
