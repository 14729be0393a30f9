"""Calls recorded in a reference run, and their alignment with those of the image run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.deep_lift.cancellation import SUMS
from voxplain.engine.rules.mode import RuleMode, caller
from voxplain.engine.tensors import is_floating, map_tensors, storage_key, version
from voxplain.errors import RuleError


def is_recorded(call: Call, mode: RuleMode, with_affine: bool) -> bool:
    """Whether a call is recorded in the reference run and aligned with the image run.

    The answer must not depend on gradients, which only one of the runs has. Calls on weights alone
    are left out. Calls that turn out to be linear in the image are recorded and left unchanged.

    Args:
        call: The call.
        mode: Of either run.
        with_affine: Whether weighted sums of the image are recorded as well.
    """
    floating = [operand for operand in call.operands() if is_floating(operand)]
    if not floating or all(mode.from_parameters(operand) for operand in floating):
        return False
    if with_affine and call.kind is OperationKind.WEIGHTED:
        return True
    if with_affine and call.name in SUMS and len(floating) > 1:
        return _two_operands(call, mode)
    may_be_nonlinear = _MAY_BE_NONLINEAR.get(call.kind)
    return False if may_be_nonlinear is None else may_be_nonlinear(call, mode)


def _always(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return True


def _two_operands(call: Call, mode: RuleMode) -> bool:
    return sum(not mode.from_parameters(operand) for operand in call.operands()) > 1


def _divides(call: Call, mode: RuleMode) -> bool:
    if call.name == "rdiv":
        return True
    divisor = call.get("other")
    return isinstance(divisor, Tensor) and not mode.from_parameters(divisor)


def _has_computed_weight(call: Call, mode: RuleMode) -> bool:
    return not mode.from_parameters(call.arguments["weight"])


def _has_mask(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return mask_of(call) is not None


def _uses_statistics(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return not is_affine(call)


_MAY_BE_NONLINEAR: dict[OperationKind, Callable[[Call, RuleMode], bool]] = {
    OperationKind.RECTIFIER: _always,
    OperationKind.SQUASHING: _always,
    OperationKind.ELEMENTWISE: _always,
    OperationKind.PRODUCT: _two_operands,
    OperationKind.QUOTIENT: _divides,
    OperationKind.BILINEAR: _two_operands,
    OperationKind.WEIGHTED: _has_computed_weight,
    OperationKind.SELECT: _has_mask,
    OperationKind.ATTENTION: _always,
    OperationKind.COMPOSITE: _always,
    OperationKind.SOFTMAX: _always,
    OperationKind.NORM: _uses_statistics,
    OperationKind.MAXIMUM: _always,
}


def mask_of(call: Call) -> Tensor | None:
    """The boolean mask of a call that selects element by element, else None."""
    if call.name == "where":
        mask = call.get("condition") if "input" in call.arguments else None
    else:
        mask = call.get("mask") if call.name == "masked_fill" else call.get("index")
    boolean = isinstance(mask, Tensor) and not is_floating(mask) and mask.dtype.itemsize == 1
    return mask if boolean else None


class Recording(RuleMode):
    """The calls of the reference run in order, with their operands at the time of the call.

    Operands are stored by reference; one that is about to be written in place is copied first.

    Args:
        with_affine: Whether weighted sums are recorded as well.

    Attributes:
        calls: Recorded calls; composite functions as the simpler calls they are decomposed into.
    """

    def __init__(self, with_affine: bool = False) -> None:
        super().__init__()
        self._with_affine = with_affine
        self.calls: list[Call] = []
        self._versions: list[tuple[int, ...]] = []
        self._by_storage: dict[int, list[int]] = {}

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Records the call and runs it."""
        if is_recorded(call, self, self._with_affine):
            decomposed = decomposition(call)
            if decomposed is None:
                self._record(call)
            else:
                with self:
                    decomposed()
        if (target := written_tensor(call)) is not None:
            self._copy_operands(storage_key(target))
        return native()

    def finish(self) -> None:
        """Checks that no recorded operand was overwritten by an unknown function.

        Raises:
            RuleError: Names the call whose operand changed.
        """
        for position, call in enumerate(self.calls):
            if self._versions[position] != _versions(call):
                raise RuleError(
                    f"an operand of {call.name} (call {position} of the reference run) was "
                    "overwritten by a function that is not known to write; use the rule 'plain'"
                )

    def _record(self, call: Call) -> None:
        position = len(self.calls)
        detached = call.detached()
        self.calls.append(detached)
        self._versions.append(_versions(detached))
        self.treated[call.name] += 1
        for operand in detached.operands():
            self._by_storage.setdefault(storage_key(operand), []).append(position)

    def _copy_operands(self, storage: int) -> None:
        """Copies the recorded operands that share a storage which is about to be written."""
        for position in self._by_storage.pop(storage, []):
            call = self.calls[position]
            arguments = map_tensors(
                call.arguments,
                lambda tensor: tensor.clone() if storage_key(tensor) == storage else tensor,
            )
            self.calls[position] = replace(call, arguments=arguments)
            self._versions[position] = _versions(self.calls[position])


class Alignment:
    """Pairs each call of the image run with the next one of a recording.

    Args:
        recording: Of the finished reference run.
    """

    def __init__(self, recording: Recording) -> None:
        self._calls = recording.calls
        self._position = 0

    def reference_call(self, call: Call) -> Call:
        """The call of the reference run that corresponds to the next call of the image run.

        Raises:
            RuleError: If it is another function or has other shapes.
        """
        if self._position >= len(self._calls):
            raise RuleError(f"{_DIVERGED}: {call.name} in {caller()} has no counterpart")
        reference = self._calls[self._position]
        if reference.name != call.name or reference.shapes() != call.shapes():
            raise RuleError(
                f"{_DIVERGED}: call {self._position} is {call.name}{list(call.shapes())} in "
                f"{caller()}, and was {reference.name}{list(reference.shapes())} for the baseline"
            )
        self._position += 1
        return reference

    def finish(self) -> None:
        """Checks that every recorded call has its counterpart.

        Raises:
            RuleError: If the image run ended early.
        """
        if self._position < len(self._calls):
            missing = self._calls[self._position].name
            raise RuleError(f"{_DIVERGED}: {missing} was called for the baseline alone")


_DIVERGED = "the control flow of the network differs between image and baseline"


def written_tensor(call: Call) -> Tensor | None:
    """The tensor of the caller that the call writes to, if any."""
    if call.out is not None:
        return call.out
    return next(call.operands(), None) if call.inplace else None


def _versions(call: Call) -> tuple[int, ...]:
    return tuple(version(operand) for operand in call.operands())
