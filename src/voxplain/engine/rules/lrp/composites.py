"""Composites: the layer rule of each linear call, as data.

A composite is a list of choices. The first one that fits a call gives its rule; if none fits, it
is the epsilon rule. Layers near the image need rules that smooth, layers near the output rules
that are faithful to it (Montavon et al., 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.lrp.layer_rules import (
    EPSILON,
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    LayerRule,
)
from voxplain.errors import ConfigError, nearest

Kind = Literal["any", "convolution", "dense", "norm"]
RuleKeyword = Literal["epsilon", "gamma", "alpha_beta", "box", "flat", "pass"]
_FOR_IMAGES = ("box", "flat")


@dataclass(frozen=True)
class Choice:
    """A layer rule, and the calls to which it applies.

    Attributes:
        rule: Its keyword; ``pass`` passes relevance unchanged and is for norms.
        kind: ``convolution`` (transposed ones too), ``dense`` (linear layers and products with a
            weight), ``norm``, or ``any`` of the weighted ones.
        function: One function by its canonical name, such as ``conv3d``.
        depth: Range of depths in the network, from 0 at the input to 1 at the output.
        first: Only for layers that read the image itself.
        kernel: ``point`` for convolutions of one voxel, ``wide`` for larger ones.
        epsilon: Of the rule.
        gamma: Of the gamma rule.
        alpha: Of the alpha-beta rule.
        beta: Of the alpha-beta rule.

    Raises:
        ConfigError: For a rule that cannot be applied to these calls.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rule: RuleKeyword
    kind: Kind = "any"
    function: str | None = None
    depth: tuple[float, float] = (0.0, 1.0)
    first: bool = False
    kernel: Literal["any", "point", "wide"] = "any"
    epsilon: float = EPSILON
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(RuleKeyword):
            raise ConfigError(
                f"unknown layer rule {self.rule!r}; {nearest(self.rule, get_args(RuleKeyword))}"
            )
        if (self.kind == "norm") is not (self.rule == "pass") and self.rule != "epsilon":
            raise ConfigError(
                f"the layer rule {self.rule!r} is not for the kind {self.kind!r}: norms take "
                "epsilon or pass, weighted layers any but pass"
            )
        if self.rule in _FOR_IMAGES and not self.first:
            raise ConfigError(f"the layer rule {self.rule!r} needs first: true; it reads intensity")
        self.layer_rule()

    def layer_rule(self) -> LayerRule | None:
        """The layer rule; None for ``pass``."""
        if self.rule == "gamma":
            return Gamma(self.gamma, self.epsilon)
        if self.rule == "alpha_beta":
            return AlphaBeta(self.alpha, self.beta, self.epsilon)
        if self.rule == "box":
            return Box(self.epsilon)
        if self.rule == "flat":
            return Flat()
        return None if self.rule == "pass" else Epsilon(self.epsilon)

    def fits(self, place: LayerPlace, depth: float) -> bool:
        """Whether the choice applies to a call.

        Args:
            place: The call.
            depth: Its position among the weighted calls, from 0 to 1.
        """
        if self.first and not place.first:
            return False
        if self.function is not None and self.function != place.function:
            return False
        if (place.kind == "norm") is not (self.kind == "norm"):
            return False
        if self.kind not in ("any", place.kind):
            return False
        if self.kernel not in ("any", place.kernel):
            return False
        return self.depth[0] <= depth <= self.depth[1]


Composite = tuple[Choice, ...]
CompositeName = Literal["epsilon_gamma_box", "epsilon", "epsilon_plus", "alpha2_beta1"]
COMPOSITES: dict[str, Composite] = {
    "epsilon_gamma_box": (
        Choice("box", first=True),
        Choice("gamma", depth=(0.0, 0.5)),
    ),
    "epsilon": (),
    "epsilon_plus": (Choice("alpha_beta", "convolution", alpha=1.0, beta=0.0),),
    "alpha2_beta1": (Choice("alpha_beta", "convolution", alpha=2.0, beta=1.0),),
}
"""All of them use the epsilon rule where no choice fits: in dense layers, in the upper half."""


@dataclass(frozen=True)
class LayerPlace:
    """The properties of a weighted call or norm by which composites choose.

    Attributes:
        function: Canonical name.
        kind: ``convolution``, ``dense`` or ``norm``.
        order: Number of weighted calls before it in the forward.
        first: Whether it reads the image itself, at most rearranged.
        kernel: Of a convolution: ``point`` for one voxel, ``wide`` for more.
    """

    function: str
    kind: Kind
    order: int
    first: bool = False
    kernel: Literal["none", "point", "wide"] = "none"


def layer_place(call: Call, order: int, first: bool) -> LayerPlace:
    """The place of a call in the forward, for :func:`choose_rule`."""
    if call.kind is OperationKind.NORM:
        return LayerPlace(call.name, "norm", order)
    if "conv" not in call.name:
        return LayerPlace(call.name, "dense", order, first)
    wide = any(size > 1 for size in call.arguments["weight"].shape[2:])
    return LayerPlace(call.name, "convolution", order, first, "wide" if wide else "point")


def choose_rule(
    composite: Composite, place: LayerPlace, count: int, epsilon: float = EPSILON
) -> LayerRule | None:
    """The layer rule of one call; None if relevance passes unchanged.

    Args:
        composite: The choices, in order.
        place: The call.
        count: Number of weighted calls in the forward.
        epsilon: Of the epsilon rule if no choice fits.
    """
    depth = place.order / max(count - 1, 1)
    for choice in composite:
        if choice.fits(place, min(depth, 1.0)):
            return choice.layer_rule()
    return Epsilon(epsilon)


def composite_of(given: CompositeName | Composite, epsilon: float, gamma: float) -> Composite:
    """The choices of a named composite with these parameters; a list of choices unchanged.

    Raises:
        ConfigError: With the nearest names.
    """
    if not isinstance(given, str):
        return given
    if given not in COMPOSITES:
        raise ConfigError(f"unknown composite {given!r}; {nearest(given, COMPOSITES)}")
    choices = COMPOSITES[given]
    return tuple(replace(choice, epsilon=epsilon, gamma=gamma) for choice in choices)
