"""Which calls of a reference run are kept, and which call of the image run belongs to which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.mode import RuleMode, caller
from voxplain.engine.tensors import is_floating, map_tensors, storage_key, version
from voxplain.errors import RuleError


def is_recorded(call: Call, mode: RuleMode) -> bool:
    """Whether a call takes part in the alignment of two runs.

    The answer may not depend on gradients, which only one of the runs has. Calls on weights alone
    are left out, calls that turn out to be linear in the image are simply not treated.
    """
    floating = [operand for operand in call.operands() if is_floating(operand)]
    if not floating or all(mode.from_parameters(operand) for operand in floating):
        return False
    decide = _DECISIONS.get(call.family)
    return False if decide is None else decide(call, mode)


def _always(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return True


def _two_operands(call: Call, mode: RuleMode) -> bool:
    return sum(not mode.from_parameters(operand) for operand in call.operands()) > 1


def _divides(call: Call, mode: RuleMode) -> bool:
    if call.name == "rdiv":
        return True
    divisor = call.get("other")
    return isinstance(divisor, Tensor) and not mode.from_parameters(divisor)


def _has_moving_weight(call: Call, mode: RuleMode) -> bool:
    return not mode.from_parameters(call.arguments["weight"])


def _has_mask(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return mask_of(call) is not None


def _uses_statistics(call: Call, mode: RuleMode) -> bool:  # noqa: ARG001
    return not is_affine(call)


_DECISIONS: dict[OperationKind, Callable[[Call, RuleMode], bool]] = {
    OperationKind.RECTIFIER: _always,
    OperationKind.SQUASHING: _always,
    OperationKind.ELEMENTWISE: _always,
    OperationKind.PRODUCT: _two_operands,
    OperationKind.QUOTIENT: _divides,
    OperationKind.BILINEAR: _two_operands,
    OperationKind.WEIGHTED: _has_moving_weight,
    OperationKind.SELECT: _has_mask,
    OperationKind.ATTENTION: _always,
    OperationKind.COMPOSITE: _always,
    OperationKind.SOFTMAX: _always,
    OperationKind.NORM: _uses_statistics,
    OperationKind.MAXIMUM: _always,
}


def mask_of(call: Call) -> Tensor | None:
    """The mask of a selecting call that chooses voxel by voxel, else None."""
    if call.name == "where":
        mask = call.get("condition") if "input" in call.arguments else None
    else:
        mask = call.get("mask") if call.name == "masked_fill" else call.get("index")
    boolean = isinstance(mask, Tensor) and not is_floating(mask) and mask.dtype.itemsize == 1
    return mask if boolean else None


class Recording(RuleMode):
    """The calls of the reference run in order, with the operands they had when they were made.

    Operands are kept by reference; one that is about to be written in place is copied first.

    Attributes:
        calls: Recorded calls, the parts of composite functions in place of the whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._versions: list[tuple[int, ...]] = []
        self._by_storage: dict[int, list[int]] = {}

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Keeps the call and lets torch compute it."""
        if is_recorded(call, self):
            steps = decomposition(call)
            if steps is None:
                self._keep(call)
            else:
                with self:
                    steps()
        if (target := written_tensor(call)) is not None:
            self._copy_kept(storage_key(target))
        return native()

    def finish(self) -> None:
        """Makes sure that nothing was written behind the back of the mode."""
        for position, call in enumerate(self.calls):
            if self._versions[position] != _versions(call):
                raise RuleError(
                    f"an operand of {call.name} (call {position} of the reference run) was "
                    "overwritten by a function that is not known to write; use the rule 'plain'"
                )

    def _keep(self, call: Call) -> None:
        position = len(self.calls)
        kept = call.detached()
        self.calls.append(kept)
        self._versions.append(_versions(kept))
        self.treated[call.name] += 1
        for operand in kept.operands():
            self._by_storage.setdefault(storage_key(operand), []).append(position)

    def _copy_kept(self, storage: int) -> None:
        for position in self._by_storage.pop(storage, []):
            call = self.calls[position]
            arguments = map_tensors(
                call.arguments,
                lambda tensor: tensor.clone() if storage_key(tensor) == storage else tensor,
            )
            self.calls[position] = replace(call, arguments=arguments)
            self._versions[position] = _versions(self.calls[position])


class Alignment:
    """Walks through a recording as the image run makes its calls.

    Args:
        recording: Of the reference run, finished.
    """

    def __init__(self, recording: Recording) -> None:
        self._calls = recording.calls
        self._position = 0

    def partner(self, call: Call) -> Call:
        """The reference run's call that belongs to this one.

        Raises:
            RuleError: If it is another function or has other shapes.
        """
        if self._position >= len(self._calls):
            raise RuleError(f"{_DIVERGED}: {call.name} in {caller()} has no counterpart")
        found = self._calls[self._position]
        if found.name != call.name or found.shapes() != call.shapes():
            raise RuleError(
                f"{_DIVERGED}: call {self._position} is {call.name}{list(call.shapes())} in "
                f"{caller()}, and was {found.name}{list(found.shapes())} for the baseline"
            )
        self._position += 1
        return found

    def finish(self) -> None:
        """Makes sure that every recorded call was met.

        Raises:
            RuleError: If the image run ended early.
        """
        if self._position < len(self._calls):
            missing = self._calls[self._position].name
            raise RuleError(f"{_DIVERGED}: {missing} was called for the baseline alone")


_DIVERGED = "the control flow of the network differs between image and baseline"


def written_tensor(call: Call) -> Tensor | None:
    """The tensor that the caller expects to change, if any."""
    if call.out is not None:
        return call.out
    return next(call.operands(), None) if call.inplace else None


def _versions(call: Call) -> tuple[int, ...]:
    return tuple(version(operand) for operand in call.operands())
