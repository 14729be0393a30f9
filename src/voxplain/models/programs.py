"""Compiled networks as modules: TorchScript, also frozen, and programs of torch.export.

Gradients pass through them; backward rules and layers cannot look inside.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import torch
from torch import Tensor, fx, nn

COMPILED = (torch.jit.ScriptModule, fx.GraphModule, torch.export.ExportedProgram)
"""What :func:`as_module` may turn into another module."""


class Program(nn.Module):
    """A compiled network, whose functions no backward rule sees.

    Attributes:
        kind: What it was compiled with.
    """

    kind = "a compiled program"


class ScriptProgram(Program):
    """TorchScript.

    Args:
        script: As ``torch.jit.load`` gives it.
    """

    kind = "TorchScript"

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script

    def forward(self, inputs: Tensor) -> Any:
        """The output of the script."""
        return self.script(inputs)


class FixedProgram(Program):
    """A program whose mode and weights are fixed, so that it is no module of torch any more.

    It computes in float32, and one image per call where its batch is fixed to one.

    Args:
        program: Frozen TorchScript, or the module of a program of torch.export.
        kind: What it was compiled with.
        content: What it is known by, as it may have no parameters.
    """

    def __init__(self, program: Any, kind: str, content: bytes) -> None:
        super().__init__()
        self.kind = kind
        self._program = (program,)  # in a tuple it is no part, whose mode would be changed
        digest = bytearray(hashlib.sha256(content).digest())
        self.register_buffer("program_sha256", torch.frombuffer(digest, dtype=torch.uint8).clone())

    def forward(self, inputs: Tensor) -> Any:
        """The output of the program."""
        (program,) = self._program
        given = inputs.float()
        try:
            return program(given)
        except (RuntimeError, AssertionError):
            if len(inputs) == 1:
                raise
        outputs = [program(image) for image in torch.split(given, 1)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def as_module(network: Any) -> nn.Module:
    """A network as a module whose mode can be set; compiled ones in a :class:`Program`."""
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    if isinstance(network, fx.GraphModule) and "eval" in vars(network):  # which torch refuses
        state = b"".join(_bytes(tensor) for tensor in network.state_dict().values())
        return FixedProgram(network, "torch.export", network.code.encode() + state)
    if not isinstance(network, torch.jit.ScriptModule):
        return network  # type: ignore[no-any-return]
    if hasattr(network, "training"):
        return ScriptProgram(network)
    buffer = io.BytesIO()
    torch.jit.save(network, buffer)
    return FixedProgram(network, "frozen TorchScript", buffer.getvalue())


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
