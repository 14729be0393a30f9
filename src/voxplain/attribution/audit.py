"""``audit``: the functions that a network calls, and how each backward rule treats them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.attribution.audit_report import CONSERVATION_BOUND, Audit, AuditedCall
from voxplain.engine.baselines import Baseline, baseline_image
from voxplain.engine.execution.double import DIFFERENT
from voxplain.engine.passes.conservation import ConservationError, conservation_error
from voxplain.engine.rules import (
    Deconvnet,
    DeepLiftRule,
    Excitation,
    Guided,
    Lrp,
    Plain,
    Rule,
    RuleMode,
    guard,
)
from voxplain.engine.rules.call_recorder import recorded_calls
from voxplain.engine.rules.visibility import invisible_parts, unseen_calls
from voxplain.errors import ConfigError, ModelError, RuleError, nearest
from voxplain.models.failures import GradientError, gradient_failures_in_words, quoted
from voxplain.models.model import Model

RULES: dict[str, Rule] = {
    "plain": Plain(),
    "guided": Guided(),
    "deconvnet": Deconvnet(),
    "deep_lift": DeepLiftRule(),
    "excitation": Excitation(),
    "lrp": Lrp(),
}

_TELLING = CONSERVATION_BOUND / 10
"""Share of what entered from which on a function that keeps it is named."""
_BASELINES: dict[str, Baseline] = {"zero": "zero", "blurred": "blur"}


def audit(
    model: Model | nn.Module,
    image: Tensor,
    rules: Sequence[str] = tuple(RULES),
) -> Audit:
    """A table of the function calls of a network, and how each backward rule treats them.

    The network is run once per rule.

    Args:
        model: A model or a network; it is left as it was.
        image: ``(B, C, *spatial)`` in model space.
        rules: Names among :data:`RULES`.

    Raises:
        ConfigError: For a rule that does not exist.
        ModelError: For a network that does not run, or has no gradient.
    """
    for name in rules:
        if name not in RULES:
            raise ConfigError(f"unknown rule {name!r}; {nearest(name, RULES)}")
    network = model.network if isinstance(model, Model) else model
    invisible = tuple(f"{path}: {reason}" for path, reason in invisible_parts(network))
    if isinstance(network, nn.DataParallel):
        return Audit(invisible=invisible, failures=dict.fromkeys(rules, invisible[0]))
    return _Auditor(Model.of(model).for_task(0), image.detach(), tuple(rules), invisible).run()


class _Auditor:
    """The results of an audit as they are collected, rule by rule."""

    def __init__(
        self, model: Model, image: Tensor, rules: tuple[str, ...], invisible: tuple[str, ...]
    ) -> None:
        self.model, self.image, self.rules = model, model.admit(image), rules
        self.invisible = dict.fromkeys(invisible)
        self.differences: dict[str, float] = {}
        self.completeness: dict[str, float] = {}
        self.conservation: dict[str, float] = {}
        self.failures: dict[str, str] = {}
        self.remarks: dict[str, tuple[str, ...]] = {}
        self.treated: dict[str, set[str]] = {"plain": set()}
        self.checkpointed = 0

    def run(self) -> Audit:
        with self.model.at_rest():
            network = self.model.network
            self.model.observe(self.image[:1])
            with nullcontext() if self.invisible else guard(network):
                recorder, leaf, output = recorded_calls(self.model, network, self.image)
            self.invisible |= dict.fromkeys(unseen_calls(output, leaf, ()))
            if not output.requires_grad:
                raise ModelError("no gradient flows from the output to the image of this network")
            self.plain = output.detach()
            reason = next(iter(self.invisible), "")
            for name in self.rules:
                if reason and name != "plain":
                    self.failures[name] = reason
                else:
                    self._try(name)
        return Audit(
            calls=tuple(self._call(row) for row in recorder.calls.values()),
            unknown=(*recorder.unknown, *recorder.hand_written),
            invisible=tuple(self.invisible),
            checkpointed=self.checkpointed,
            forward_difference=self.differences,
            completeness=self.completeness,
            conservation=self.conservation,
            guided_equals_plain=self._guided_is_plain(),
            failures=self.failures,
            remarks=self.remarks,
        )

    def _try(self, name: str) -> None:
        try:
            if RULES[name].paired:
                for label, baseline in _BASELINES.items():
                    self.completeness[label] = self._paired(name, baseline)
            else:
                self._single(name)
        except (RuleError, GradientError) as error:
            self.failures[name] = str(error)

    def _single(self, name: str) -> None:
        leaf = self.image.clone().requires_grad_()
        mode = RULES[name].mode()
        mode.functions = {}
        if name == "plain":
            output = self.model(leaf)
        else:
            with guard(self.model.network) as watch, torch.enable_grad(), mode:
                output = self.model(leaf)
            self.checkpointed = watch.checkpointed
            self._check_unseen(name, output, leaf)
        remarks = [*mode.warnings]
        if RULES[name].starts_from_output:
            error = conservation_error(RULES[name], mode, leaf, output, _score)
            self.conservation[name] = error.share
            remarks += [*_mass_remarks(mode, len(leaf)), *_loss_remarks(error)]
        self._record(name, output, self.plain, mode.treated.keys(), remarks)

    def _paired(self, name: str, baseline: Baseline) -> float:
        """Completeness error of DeepLIFT against one baseline, in float64 where it may."""
        rule, model, image = RULES[name], self.model, self.image
        reason = self._against_double
        if reason is None:
            model, image = model.in_double(), image.double()
        reference = torch.stack([baseline_image(baseline, row) for row in image])
        leaf = image.clone().requires_grad_()
        with model.at_rest(), guard(model.network) as watch:
            with torch.no_grad():
                plain = model(image)
                with rule.record() as recording:
                    start = _score(model(reference))
            mode = rule.replay(recording)
            with torch.enable_grad(), mode:
                output = model(leaf)
            score = _score(output)
            with gradient_failures_in_words():
                (multiplier,) = torch.autograd.grad(score.sum(), leaf)
        self.checkpointed = watch.checkpointed // 3
        self._check_unseen(name, output, leaf)
        remarks = [f"{reason}, so the rule ran in the network's own type"] if reason else []
        self._record(name, output, plain, mode.treated.keys(), [*mode.warnings, *remarks])
        total = ((image - reference) * multiplier).flatten(1).sum(1)
        change = score.detach() - start
        return float(((total - change).abs() / change.abs().clamp(min=1e-300)).max())

    @cached_property
    def _against_double(self) -> str | None:
        """Why float64 says nothing of the network, in a sentence; None where it does."""
        model = self.model.in_double()
        try:
            with torch.no_grad(), model.at_rest():
                double = model(self.image.double())
        except ModelError as error:
            return f"the network does not run in float64 ({quoted(error.__cause__ or error)})"
        if float((double - self.plain).abs().max()) > DIFFERENT * float(double.abs().max()):
            return "the network gives another output in float64"
        return None

    def _check_unseen(self, name: str, output: Tensor, leaf: Tensor) -> None:
        unseen = RULES[name].unseen(output, leaf)
        if unseen:
            self.invisible |= dict.fromkeys(unseen)
            self.failures[name] = unseen[0]

    def _record(
        self, name: str, output: Tensor, plain: Tensor, treated: Any, warnings: list[str]
    ) -> None:
        scale = float(plain.abs().max()) or 1.0
        difference = float((output.detach() - plain).abs().max()) / scale
        self.differences[name] = max(difference, self.differences.get(name, 0.0))
        self.treated[name] = set(treated)
        self.remarks[name] = tuple(dict.fromkeys((*self.remarks.get(name, ()), *warnings)))

    def _guided_is_plain(self) -> bool | None:
        return None if "guided" not in self.treated else not self.treated["guided"]

    def _call(self, row: Any) -> AuditedCall:
        treatment = {rule: self._treatment(rule, row) for rule in self.rules}
        return AuditedCall(
            function=row.function,
            count=row.count,
            layers=tuple(row.layers),
            family=row.kind,
            nonlinear=row.nonlinear,
            shapes=row.shapes,
            treatment=treatment,
        )

    def _treatment(self, rule: str, row: Any) -> str:
        if not row.nonlinear and not RULES[rule].starts_from_output:
            return "plain"
        whole = row.kind in ("attention", "composite") and rule in (
            "deep_lift",
            "excitation",
            "lrp",
        )
        treated = row.function in self.treated.get(rule, set())
        if whole and rule not in self.failures:
            return "decomposed"
        return "rule" if treated else "plain"


def _mass_remarks(mode: RuleMode, images: int) -> list[str]:
    """The part of a mass of 1 per image that arrives, for rules that propagate a mass."""
    lost = mode.residuals().get("unraised")
    if lost is None:
        return []
    share = max(0.0, 1 - lost / images)
    return [f"mass {share:.3g} of 1 arrives at the image; biases and constants keep the rest"]


def _loss_remarks(error: ConservationError) -> list[str]:
    """The functions at which relevance went missing without a book, in a sentence."""
    if error.share <= CONSERVATION_BOUND:
        return []
    telling = {name: part for name, part in error.functions.items() if abs(part) > _TELLING}
    where = ", ".join(f"{name} ({part:.2%})" for name, part in telling.items())
    return [f"{error.share:.2%} of what entered is in no book; it went missing at {where}"]


def _score(output: Tensor) -> Tensor:
    """Mean over positions of the class-1 output, or of the only class; one number per image."""
    channel = 1 if output.shape[1] > 1 else 0
    return output[:, channel].reshape(len(output), -1).mean(1)
