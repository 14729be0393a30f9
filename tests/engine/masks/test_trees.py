"""Regression trees over coalitions: LIME with a tree as its model of the score."""

from __future__ import annotations

import pytest
import torch
from networks import assert_close
from players import played, values
from torch import Tensor

from voxplain.engine.masks.reducers.trees import regression_tree
from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError

TREE = {"name": "lime", "surrogate": "tree"}


def all_coalitions(count: int) -> Tensor:
    """Every coalition ``(2^count, count)``, several times, so that leaves have rows enough."""
    rows = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * count)
    return rows.repeat(6, 1)


def test_a_score_that_is_a_tree_is_found() -> None:
    """S = 4 where regions 1 and 3 are kept, 1 where 1 alone is, else 0."""
    design = all_coalitions(4)
    scores = (design[:, 1] * (1 + 3 * design[:, 3])).double()
    tree = regression_tree(design, scores, torch.ones(len(design)).double(), depth=3)
    assert tree.region == 1
    assert tree.kept is not None
    assert tree.removed is not None
    assert tree.kept.region == 3
    assert tree.removed.region is None
    assert_close(tree.predictions(design), scores, 1e-12)
    expected = torch.tensor([0.0, 2.5 - 1.25, 0.0, 4 - 2.5])
    assert_close(tree.contributions(4), expected.double(), 1e-12)


def test_weights_decide_which_split_is_best() -> None:
    """Rows of weight 0 do not count: among the others region 0 decides, among all region 1."""
    design = all_coalitions(2)
    scores = (3 * design[:, 1] + design[:, 0]).double()
    ones = torch.ones(len(design)).double()
    assert regression_tree(design, scores, ones, depth=1).region == 1
    weights = ones * (1 - 0.999 * (design[:, 1] > 0.5))
    assert regression_tree(design, scores, weights, depth=1).region == 0


def test_no_split_where_nothing_is_gained_or_few_rows_are_left() -> None:
    design = all_coalitions(3)
    ones = torch.ones(len(design)).double()
    assert regression_tree(design, torch.full_like(ones, 2.5), ones, depth=3).region is None
    few = design[:8]
    scores = few.sum(dim=1).double()
    assert regression_tree(few, scores, torch.ones(8).double(), depth=3).region is None


def test_lime_with_a_tree_names_the_regions_that_decide() -> None:
    both = lambda kept: kept[:, 2] * kept[:, 5] * 3 + 0.01 * kept[:, 0]  # noqa: E731
    found = torch.tensor(values(both, 8, {**TREE, "depth": 2, "width": 5}))
    assert set(found.nonzero().flatten().tolist()) == {2, 5}
    assert bool((found[[2, 5]] > 0.5).all())
    findings = played(both, 8, {**TREE, "depth": 2, "width": 5}).stats.findings[0]
    assert findings["r2"] > 0.95
    tree = findings["tree"]
    assert {tree["region"], tree["kept"]["region"]} == {"region 3", "region 6"}
    assert tree["removed"]["mean"] < tree["mean"] < tree["kept"]["mean"]


def test_parameters_of_another_surrogate_are_refused() -> None:
    with pytest.raises(ConfigError, match="penalty is for ridge and lasso"):
        parse_method({**TREE, "penalty": 1.0})
    with pytest.raises(ConfigError, match="depth is for surrogate: tree"):
        parse_method({"name": "lime", "depth": 3})


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_no_split_leaves_fewer_than_five_rows_on_either_side(few: float) -> None:
    """Region 0 decides the score and has 4 or 5 rows on one side; region 1 halves the rows."""
    for count, region in ((4, 1), (5, 0)):
        design = torch.full((20, 2), 1 - few)
        design[:count, 0] = few
        design[:, 1] = torch.arange(20) % 2
        scores = (10 * design[:, 0] + design[:, 1]).double()
        tree = regression_tree(design, scores, torch.ones(20).double(), depth=1)
        assert tree.region == region
