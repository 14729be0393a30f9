"""Networks without layers: TorchScript files, and ONNX files, which have no gradients either."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.errors import ModelError
from voxplain.models.programs import as_module


class BlackBox(nn.Module):
    """A network without gradients and layers.

    Methods of masked passes work for it; the engine refuses gradient methods if ``differentiable``
    is False.
    """

    differentiable = False

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Any:
        """The output for ``(B, C, *spatial)``, detached."""
        return self.compute(inputs.detach())

    def compute(self, inputs: Tensor) -> Any:
        """The output of the file for ``(B, C, *spatial)``."""
        raise NotImplementedError


def read_script(file: Path) -> nn.Module:
    """The network of a TorchScript file.

    Args:
        file: Written by ``torch.jit.save``, from a trusted source, as loading can run code.

    Raises:
        ModelError: If it cannot be loaded.
    """
    try:
        script = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(f"{file.name} is no TorchScript file ({type(error).__name__})") from error
    return as_module(script)


class OnnxBox(BlackBox):
    """An ONNX file, which onnxruntime runs (extra ``onnx``).

    Args:
        file: A model with one image input ``(B, C, *spatial)``.

    Raises:
        ModelError: If onnxruntime is missing, or the file cannot be loaded or has several inputs.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._name = file.name
        self._content = file.read_bytes()
        self._session = _session(self._content, self._name)
        digest = np.frombuffer(hashlib.sha256(self._content).digest(), dtype=np.uint8)
        # The hash of the file distinguishes networks that have no parameters.
        self.register_buffer("file_sha256", torch.from_numpy(digest.copy()))

    def compute(self, inputs: Tensor) -> Any:
        """The output of the session, image by image if the file fixes the batch to one."""
        expected = self._session.get_inputs()[0]
        array = inputs.cpu().numpy().astype(_NUMPY_TYPES.get(expected.type, np.float32))
        one_by_one = expected.shape and expected.shape[0] == 1 and len(array) > 1
        batches = np.split(array, len(array)) if one_by_one else [array]
        results = zip(*(self._run(batch) for batch in batches), strict=True)
        outputs = [torch.from_numpy(np.concatenate(output)).to(inputs) for output in results]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run(self, array: Any) -> list[Any]:
        expected = self._session.get_inputs()[0]
        try:
            return list(self._session.run(None, {expected.name: array}))
        except Exception as error:
            raise ModelError(
                f"{self._name} takes inputs of shape {expected.shape} and was given {array.shape} "
                f"({type(error).__name__})"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """The state without the session, which can be neither copied nor pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._session = _session(self._content, self._name)


_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


def _session(content: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("ONNX files need onnxruntime: pip install voxplain[onnx]") from error
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{name} is no ONNX file that onnxruntime can run ({type(error).__name__})"
        ) from error
    if len(session.get_inputs()) != 1:
        names = ", ".join(node.name for node in session.get_inputs())
        raise ModelError(
            f"{name} has several inputs ({names}); voxplain explains networks with one"
        )
    return session
