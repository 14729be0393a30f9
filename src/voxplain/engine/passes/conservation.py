"""Conservation check of LRP and excitation backprop: relevance in, relevance out, absorbed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node

from voxplain.engine.rules import Rule, RuleMode
from voxplain.engine.rules.lrp.layer_rules import total
from voxplain.models.failures import gradient_failures_in_words

_TELLING = 0.5
"""Share of the score that has to be missing from a map before its reader is told."""


class Conservation:
    """Where the relevance of a stream went, summed over its points.

    ``score = link + map + padding + bias + epsilon``: what a nonlinear link leaves out of the
    first-order part of S at the output; what the map holds; what fell on voxels that windows pad;
    what biases, shifts of norms and other constants took; what stabilizers took.
    """

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    def add_backward(
        self, seed: Tensor, relevance: Tensor, shares: Mapping[str, float], copies: int = 1
    ) -> None:
        """Adds one backward pass.

        Args:
            seed: Relevance at the output.
            relevance: Relevance at the input of the network.
            shares: Relevance that layers absorbed, by name.
            copies: How often each point was shown.
        """
        sums = {"entered": float(total(seed)), "arrived": float(total(relevance)), **shares}
        self._sums.update({name: value / copies for name, value in sums.items()})

    def add_maps(self, scores: Tensor, relevance: Tensor) -> None:
        """Adds the scores of some points and their maps."""
        self._sums.update({"score": float(total(scores)), "map": float(total(relevance))})

    def facts(self, points: int) -> dict[str, float]:
        """The shares of one point, the mean of all; empty where nothing is conserved."""
        if "entered" not in self._sums:
            return {}
        sums = {name: value / max(points, 1) for name, value in self._sums.items()}
        shares = {name: sums[name] for name in sums if name not in ("entered", "arrived")}
        if (kept := self._unraised) is not None:  # a mass of 1 entered, whatever the score is
            padding = sums["arrived"] - sums["map"]
            return {"map": sums["map"], kept: sums[kept], "padding": padding}
        return {
            **shares,
            "link": sums["score"] - sums["entered"],
            "padding": sums["arrived"] - sums["map"],
        }

    @property
    def _unraised(self) -> str | None:
        """The name under which a mass that was lost is booked, where there is one."""
        return next((name for name in self._sums if name.startswith("unraised")), None)

    def remark(self) -> str | None:
        """A sentence where the map holds much more or less than the score."""
        if (kept := self._unraised) is not None:
            share = self._sums[kept] / max(self._sums[kept] + self._sums["arrived"], 1e-300)
            what = "the evidence against it" if kept.endswith("against") else "the evidence"
            where = "constants, or at units that nothing raises but their bias"
            said = f"{share:.0%} of {what} ended at {where}"
            return said if share > _TELLING else None
        if "entered" not in self._sums:
            return None
        score, held = self._sums["score"], self._sums["bias"] + self._sums["epsilon"]
        link = score - self._sums["entered"]
        books = {
            "biases, shifts of norms and stabilizers": held,
            "the nonlinear link of the score": link,
        }
        telling = {name: part for name, part in books.items() if abs(part) > _TELLING * abs(score)}
        if not telling or score == 0:
            return None
        holders = " and ".join(
            f"{name} hold{'' if name[-1] == 's' else 's'} {part / score:.0%}"
            for name, part in telling.items()
        )
        held_by_map = f"{self._sums['map'] / score:.0%}"
        return f"relevance at the image sums to {held_by_map} of the score: {holders}"


@dataclass(frozen=True)
class ConservationError:
    """What one backward pass hands on to nobody and puts into no book.

    Attributes:
        share: Of what entered.
        functions: The functions at which it went missing, or from which too much came, each with
            its share of what entered; the largest first.
    """

    share: float
    functions: dict[str, float]


def conservation_error(
    rule: Rule,
    mode: RuleMode,
    image: Tensor,
    output: Tensor,
    score: Callable[[Tensor], Tensor],
) -> ConservationError:
    """What is neither on the map nor booked, and where it was lost; one backward.

    Args:
        rule: Hands on a conserved sum.
        mode: Of the forward, with the functions of its nodes.
        image: The leaf that went in.
        output: What came out, in its graph.
        score: Of an output, one number per image.
    """
    end = output.detach().requires_grad_()
    with torch.enable_grad():
        (cotangent,) = torch.autograd.grad(score(end).sum(), end)
    output_seed = rule.output_seed(cotangent, end.detach())
    losses = _Losses(mode)
    with losses.watched(output), gradient_failures_in_words():
        (found,) = torch.autograd.grad(output, image, output_seed)
    missing = total(output_seed) - total(found) - sum(mode.residuals().values())
    entered = max(abs(float(total(output_seed))), 1e-300)
    shares = {name: amount / entered for name, amount in losses.by_function().items()}
    return ConservationError(abs(float(missing)) / entered, shares)


class _Losses:
    """What goes into every node of a graph and neither comes out nor is booked.

    Args:
        mode: Whose books they are.
    """

    def __init__(self, mode: RuleMode) -> None:
        self._mode = mode
        self._lost: dict[Node, float] = {}
        self._booked = 0.0

    @contextlib.contextmanager
    def watched(self, output: Tensor) -> Iterator[None]:
        """Watches the nodes behind an output during a backward pass."""
        with contextlib.ExitStack() as stack:
            for node in _nodes(output):
                before = node.register_prehook(partial(self._before, node))
                after = node.register_hook(partial(self._after, node))
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield

    def by_function(self) -> dict[str, float]:
        """By the function that made the node; nodes inside a function under torch's own name."""
        functions = self._mode.functions or {}
        lost: dict[str, float] = {}
        for node, amount in self._lost.items():
            name = functions.get(node, node.name().partition("Backward")[0])
            lost[name] = lost.get(name, 0.0) + amount
        return dict(sorted(lost.items(), key=lambda entry: -abs(entry[1])))

    def _before(self, node: Node, entering: Sequence[Tensor | None]) -> None:
        self._booked = sum(self._mode.residuals().values())
        self._lost[node] = self._lost.get(node, 0.0) + _sum_of(entering)

    def _after(
        self, node: Node, leaving: Sequence[Tensor | None], _: Sequence[Tensor | None]
    ) -> None:
        booked = sum(self._mode.residuals().values()) - self._booked
        self._lost[node] -= _sum_of(leaving) + booked


def _nodes(output: Tensor) -> Iterator[Node]:
    """All nodes behind an output, without its leaves."""
    waiting = [output.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or "AccumulateGrad" in node.name():
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        yield node


def _sum_of(gradients: Sequence[Tensor | None]) -> float:
    return sum(float(total(gradient)) for gradient in gradients if gradient is not None)
