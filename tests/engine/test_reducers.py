"""Reducers, batch sizes, and which declarations are equal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from voxplain.engine.gradients.quadrature import Quadrature, nodes_and_weights
from voxplain.engine.gradients.reducers import (
    AlongPath,
    MeanGradient,
    MeanValue,
    TapBatch,
    TimesDifference,
    TimesValue,
)
from voxplain.engine.gradients.samplers import StraightPath
from voxplain.engine.identity import identity
from voxplain.engine.memory import BackwardBudget, is_out_of_memory
from voxplain.engine.method import parse_method
from voxplain.engine.randomness import CopyStatistic

QUADRATURES: tuple[Quadrature, ...] = (
    "gauss_legendre",
    "left",
    "right",
    "midpoint",
    "trapezoid",
    "pair",
)


def points(count: int, seed: int = 0) -> TapBatch:
    source = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=source, dtype=torch.float64)  # noqa: E731
    weights = torch.rand(count, generator=source, dtype=torch.float64)
    return TapBatch(
        value=draw(count, 2, 3),
        gradient=draw(count, 2, 3),
        weights=weights / weights.sum(),
        start=draw(1, 2, 3),
        end=draw(1, 2, 3),
        along=torch.linspace(0.1, 0.9, count),
    )


def cut(all_points: TapBatch, size: int) -> list[TapBatch]:
    count = len(all_points.value)
    return [
        TapBatch(
            all_points.value[at : at + size],
            all_points.gradient[at : at + size],
            all_points.weights[at : at + size],
            all_points.start,
            all_points.end,
            all_points.along[at : at + size] if all_points.along is not None else None,
        )
        for at in range(0, count, size)
    ]


class TestReducers:
    SUMS: dict[type, Callable[[TapBatch], Tensor]] = {  # noqa: RUF012
        MeanGradient: lambda p: _weighted(p, p.gradient),
        TimesValue: lambda p: _weighted(p, p.gradient * p.value),
        MeanValue: lambda p: _weighted(p, p.value),
        TimesDifference: lambda p: _weighted(p, p.gradient) * (p.end - p.start)[0],  # type: ignore[operator]
    }

    @pytest.mark.parametrize("kind", SUMS)
    @pytest.mark.parametrize("size", [1, 2, 7])
    def test_sums(self, kind: type, size: int) -> None:
        batch = points(7)
        reducer = kind()
        for piece in cut(batch, size):
            reducer.update(piece)
        torch.testing.assert_close(reducer.result(), self.SUMS[kind](batch), rtol=1e-12, atol=1e-14)

    def test_differences_of_each_point(self) -> None:
        batch = points(5)
        ends = torch.randn(2, 5, 2, 3, dtype=torch.float64)
        reducer = TimesDifference()
        reducer.update(TapBatch(batch.value, batch.gradient, batch.weights, ends[0], ends[1]))
        expected = _weighted(batch, batch.gradient * (ends[1] - ends[0]))
        torch.testing.assert_close(reducer.result(), expected)

    @pytest.mark.parametrize("rule", QUADRATURES)
    @pytest.mark.parametrize("size", [1, 3, 8])
    def test_changes_along_a_path_add_up(self, rule: Quadrature, size: int) -> None:
        """With gradient 1 everywhere the pieces of conductance telescope to end - start."""
        nodes, weights = (torch.from_numpy(array) for array in nodes_and_weights(rule, 8))
        curve = lambda a: torch.stack([a**2, torch.sin(3 * a)], -1)  # noqa: E731
        batch = TapBatch(
            curve(nodes),
            torch.ones(8, 2, dtype=torch.float64),
            weights,
            curve(torch.zeros(1).double()),
            curve(torch.ones(1).double()),
            nodes,
        )
        reducer = AlongPath()
        for piece in cut(batch, size):
            reducer.update(piece)
        expected = torch.tensor([1.0, math.sin(3)], dtype=torch.float64)
        torch.testing.assert_close(reducer.result(), expected, rtol=1e-12, atol=0)

    def test_conductance_converges_to_the_integral_of_gradient_times_change(self) -> None:
        """G = a^3, A = a^2: the integral of a^3 dA = 2 a^4 da is 2/5."""
        errors = []
        for count in (10, 20, 40):
            nodes, weights = (
                torch.from_numpy(array) for array in nodes_and_weights("midpoint", count)
            )
            column = nodes[:, None]
            zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
            reducer = AlongPath()
            reducer.update(TapBatch(column**2, column**3, weights, zero, one, nodes))
            errors.append(abs(float(reducer.result()) - 0.4))
        assert errors[2] < 1e-3
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)  # second order

    @pytest.mark.parametrize("kind", ["mean", "mean_square", "variance"])
    def test_statistics_over_draws_are_stable(self, kind: str) -> None:
        draws = torch.randn(50, 3, 4) + 1e4  # a variance of 1 on top of a mean of 10^4
        summed = CopyStatistic(kind)  # type: ignore[arg-type]
        for draw in draws:
            summed.update(draw)
        exact = draws.double()
        expected = {
            "mean": exact.mean(0),
            "mean_square": exact.square().mean(0),
            "variance": exact.var(0, correction=0),
        }[kind]
        tolerance = 1e-3 if kind == "variance" else 1e-6
        torch.testing.assert_close(summed.result().double(), expected, rtol=tolerance, atol=0)

    @pytest.mark.parametrize(
        "build",
        [MeanGradient, AlongPath, lambda: CopyStatistic("mean")],
        ids=["sum", "path", "draws"],
    )
    def test_a_result_without_points_is_an_error(self, build: Callable[[], MeanGradient]) -> None:
        with pytest.raises(ValueError, match="was seen"):
            build().result()


def _weighted(batch: TapBatch, values: Tensor) -> Tensor:
    return (batch.weights.view(-1, 1, 1) * values).sum(0)


class TestBudget:
    def test_measures_once_and_fills_the_limit(self) -> None:
        budget = BackwardBudget(torch.device("cpu"), limit=10_000)
        assert budget.size == 1
        leaf = torch.ones(1, 100, requires_grad=True)
        with budget.measured(1):
            leaf.exp().sum()  # saves its result: 400 bytes
        assert budget.bytes_per_point == 400
        assert budget.size == 25
        with budget.measured(1):
            leaf.repeat(10, 1).exp()
        assert budget.size == 25

    def test_halves_down_to_one(self) -> None:
        budget = BackwardBudget(torch.device("cpu"), limit=1)
        budget.size = 5
        sizes = []
        while budget.halve():
            sizes.append(budget.size)
        assert sizes == [2, 1]

    @pytest.mark.parametrize(
        ("error", "is_memory"),
        [
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
            (RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory"), True),
            (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
            (RuntimeError("size mismatch, m1: [1 x 2]"), False),
        ],
    )
    def test_what_counts_as_out_of_memory(self, error: RuntimeError, is_memory: bool) -> None:
        assert is_out_of_memory(error) is is_memory


def test_identity_is_equality_by_value() -> None:
    baseline = torch.randn(1, 4)
    same = [StraightPath(4, "left", baseline), StraightPath(4, "left", baseline.clone())]
    assert identity(same[0]) == identity(same[1])
    for other in (
        StraightPath(5, "left", baseline),
        StraightPath(4, "right", baseline),
        StraightPath(4, "left", baseline + 1),
        StraightPath(4, "left", "zero"),
        StraightPath(4, "left", baseline.double()),
    ):
        assert identity(other) != identity(same[0])
    assert identity({"a": [1, baseline]}) == identity({"a": [1, baseline.clone()]})
    assert identity(parse_method("saliency")) != identity(parse_method("vanilla_backprop"))
