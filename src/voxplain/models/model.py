"""The network under study with its windows, precision and head; it is never changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.errors import ModelError, nearest
from voxplain.models.failures import raise_in_words
from voxplain.models.hooks import copy_network
from voxplain.models.output_place import OutputPlace, place_of_output
from voxplain.models.precision import HALF, Precision
from voxplain.models.rest import at_rest
from voxplain.models.windows import Layout, Margins, Window
from voxplain.records.sidecar import ModelFacts

Head = int | str | Callable[[Any], Tensor]

_VOLUME, _SMALL_VOLUME = 5, 50**3

_ONE_COPY = threading.Lock()
"""Held while a copy in float64 is made, so that two threads make one."""


class Model:
    """A network, and how its output is computed: windows, precision, and which output is explained.

    The network is never changed, and several threads may explain it at once: they share its modes
    and flags, which are restored when the last of them is done.

    Args:
        network: Any module that maps ``(B, C, *spatial)`` to scores ``(B, K)`` or to a dense
            output ``(B, K, *spatial)``.
        head: The explained part of a tuple, list or dict output: an index, a key, or a function of
            the output. None for an output that is a tensor.
        window: Sliding windows, for networks that run on parts of a volume.
        precision: ``auto`` for half precision on a GPU if it agrees with float32.
        name: Name in files and reports; the class name if None.
        classes: Names of the output classes, for reports.

    Example:
        >>> model = Model(nn.Conv3d(1, 2, 3, padding=1), window={"size": 16, "overlap": 0.5})
        >>> model.output(torch.zeros(1, 1, 24, 24, 24)).shape
        torch.Size([1, 2, 24, 24, 24])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head | None = None,
        window: Window | Mapping[str, Any] | None = None,
        precision: Precision = "auto",
        name: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        if isinstance(network, nn.DataParallel):
            raise ModelError(
                "the network is wrapped in nn.DataParallel, whose threads no backward rule sees; "
                "pass network.module"
            )
        self.network = network
        self.head = head
        self.window = Window.model_validate(window) if isinstance(window, Mapping) else window
        self.precision: Precision = precision
        self.name = name or type(network).__name__
        self.classes = tuple(classes)
        self._double: nn.Module | None = None
        self._places: dict[tuple[int, ...], OutputPlace | None] = {}

    @classmethod
    def of(cls, model: Model | nn.Module) -> Model:
        """The model itself, or a model of a bare network."""
        return model if isinstance(model, cls) else cls(model)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU for a network without any."""
        first = next(_tensors(self.network), None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters; float32 for a network without any."""
        tensors = _tensors(self.network)
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    def admit(self, images: Tensor) -> Tensor:
        """Images on the device of the network and in its type, if it has floating-point tensors."""
        has_type = any(tensor.is_floating_point() for tensor in _tensors(self.network))
        return images.to(self.device, self.dtype if has_type else images.dtype)

    @property
    def differentiable(self) -> bool:
        """False for forward-only black boxes (ONNX, TorchScript)."""
        return bool(getattr(self.network, "differentiable", True))

    @property
    def facts(self) -> ModelFacts:
        """The description of the model in sidecars and manifests."""
        return ModelFacts(
            name=self.name,
            weights_sha256=weights_sha256(self.network),
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            precision=self.resolved_precision,
            head=None if self.head is None else getattr(self.head, "__name__", str(self.head)),
            window=self.window.model_dump(mode="json") if self.window else None,
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """The explained output of one call of the network, without windows.

        Args:
            inputs: ``(B, C, *spatial)``.

        Raises:
            ModelError: If the output is no tensor ``(B, K, ...)``, or the network fails; its own
                error is the cause.
        """
        try:
            output = self.network(inputs)
            if self.head is not None:
                output = _select(output, self.head)
        except Exception as error:
            raise_in_words(error, inputs)
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"the network returns {_described(output)}; choose a part with head= (an index, "
                "a key or a function)"
            )
        if output.ndim < 2 or len(output) != len(inputs):
            raise ModelError(
                f"the network maps {tuple(inputs.shape)} to {tuple(output.shape)}; voxplain needs "
                "(B, K) scores or a dense (B, K, *spatial) output"
            )
        return output

    def layout(self, volume: Tensor, spacing: Sequence[float] | None = None) -> Layout | None:
        """The windows over a volume ``(C, *spatial)``; None for a model without windows.

        The first time one window is computed, since its output may be smaller than the window.

        Args:
            volume: On any device.
            spacing: Millimeters per voxel, for windows in mm.
        """
        if self.window is None:
            return None
        layout = self.window.layout(volume.shape[1:], spacing)
        middle = layout.positions[len(layout) // 2]
        margins = self._margins(layout.cut(layout.pad(volume), [middle]))
        return self.window.layout(volume.shape[1:], spacing, margins) if margins else layout

    def place(self, example: Tensor) -> OutputPlace | None:
        """Where the cells of the output lie in an input ``(1, C, *spatial)``.

        None where this is unknown, and for an output without spatial axes. It is found once for
        each shape of the input.
        """
        shape = tuple(example.shape[1:])
        if shape not in self._places:
            with torch.no_grad(), self.at_rest():
                self._places[shape] = self._placed(self.admit(example))
        return self._places[shape]

    def _placed(self, example: Tensor) -> OutputPlace | None:
        cells = self(example).shape[2:]
        if cells == example.shape[2:]:
            return OutputPlace.same(cells)
        return place_of_output(self.network, self, example) if cells else None

    def _margins(self, window: Tensor) -> Margins | None:
        """Voxels of a window ``(1, C, *size)`` that its output does not cover, None for no voxel.

        Raises:
            ModelError: If the network returns scores, or another resolution, for a window.
        """
        place = self.place(window)
        margins = place.margins if place else None
        if margins is not None:
            return margins if any(map(any, margins)) else None
        size, cells = tuple(window.shape[2:]), place.cells if place else ()
        raise ModelError(
            f"sliding windows need an output of the resolution of the window, and this network "
            f"maps {size} to {cells or self._without_place(window)}"
        )

    def _without_place(self, window: Tensor) -> str:
        with torch.no_grad(), self.at_rest():
            cells = tuple(self(self.admit(window)).shape[2:])
        return f"{cells}, whose place is unknown" if cells else "one score per class"

    @torch.no_grad()
    def output(self, inputs: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The output for whole images, blended from windows if there are any.

        Args:
            inputs: ``(B, C, *spatial)``.
            spacing: Millimeters per voxel, for windows in mm.

        Returns:
            ``(B, K)`` or ``(B, K, *cells)``; blended outputs have a cell at every voxel, or, after
            valid convolutions, at every voxel that they cover.
        """
        with self.at_rest():
            layout = self.layout(inputs[0], spacing)
            if layout is None:
                return self(with_companion(inputs))[: len(inputs)]
            return torch.stack([self._assembled(image, layout) for image in inputs])

    def _assembled(self, image: Tensor, layout: Layout) -> Tensor:
        padded = layout.pad(image)
        output: Tensor | None = None
        for positions in layout.batches(self.window.batch if self.window else 1):
            outputs = self.dense(layout.cut(padded, positions))
            outputs = outputs * layout.blend_weights(positions, outputs)
            if output is None:
                output = outputs.new_zeros(outputs.shape[1], *layout.padded)
            for position, window in zip(positions, outputs, strict=True):
                output[layout.region(position)] += window
        if output is None:
            raise ModelError(f"no window fits a volume of shape {layout.shape}")
        return layout.crop(output)

    def dense(self, windows: Tensor) -> Tensor:
        """The output for windows ``(n, C, *size)``, of the same spatial shape.

        Where a network returns less, by valid convolutions, zeros surround it.

        Raises:
            ModelError: If the network returns scores, or another resolution, for a window.
        """
        output = self(windows)
        if output.shape[2:] == windows.shape[2:]:
            return output
        margins = self._margins(windows[:1].detach()) or ()
        return functional.pad(output, [count for pair in reversed(margins) for count in pair])

    def in_double(self) -> Model:
        """The model in float64, with a copy of the network that is made once."""
        if self.dtype is torch.float64:
            return self
        with _ONE_COPY:
            if self._double is None:
                self._double = copy_network(self.network).double()
        return self.twin(self._double, "float64")

    def in_precision(self, precision: Precision) -> Model:
        """The model in another precision."""
        return self.in_double() if precision == "float64" else self.twin(self.network, precision)

    def twin(self, network: nn.Module, precision: Precision | None = None) -> Model:
        """The model with a network of the same architecture, and maybe another precision."""
        twin = Model(
            network,
            head=self.head,
            window=self.window,
            precision=precision or self.precision,
            name=self.name,
            classes=self.classes,
        )
        twin._places = self._places
        return twin

    @property
    def resolved_precision(self) -> Precision:
        """The precision as given; ``auto`` is bfloat16 on a GPU that has it, else float32.

        ``auto`` is float64 for a network of that type.
        """
        if self.precision != "auto":
            return self.precision
        device, dtype = self.device, self.dtype
        if dtype is torch.float64:
            return "float64"
        capable = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bfloat16" if capable else "float32"

    def precise(self) -> AbstractContextManager[Any]:
        """A block whose calls of the network run in its precision: under autocast for half ones."""
        half = HALF.get(self.precision)
        return nullcontext() if half is None else torch.autocast(self.device.type, dtype=half)

    def at_rest(self) -> AbstractContextManager[None]:
        """A block in evaluation mode without parameter gradients.

        Several threads may be in such blocks at once; flags are restored when the last one leaves.
        """
        return at_rest(self.network)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _select(output: Any, head: Head) -> Any:
    if callable(head):
        return head(output)
    try:
        return output[head]
    except (KeyError, IndexError, TypeError) as error:
        keys = [str(key) for key in output] if isinstance(output, Mapping) else []
        hint = f"; {nearest(str(head), keys)}" if keys else ""
        raise ModelError(f"head={head!r} does not fit {_described(output)}{hint}") from error


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a dict with keys {', '.join(map(repr, output))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)} parts"
    return f"a {type(output).__name__}"


def weights_sha256(network: nn.Module) -> str:
    """A hash of the parameters and buffers of a network.

    It depends on their names, types, shapes and bytes, not on device, order or mode.
    """
    digest = hashlib.sha256()
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def lone_volume_is_slow(inputs: Tensor) -> bool:
    """Whether one input takes longer than two: a small float32 volume on a CPU.

    torch convolves ``B * C * D * H <= 20480`` cells of a lone volume without oneDNN, which takes
    four times as long as with it; from two volumes on it always uses oneDNN.

    Args:
        inputs: ``(B, C, *spatial)``.
    """
    is_lone = len(inputs) == 1 and inputs.ndim == _VOLUME
    is_small = inputs[0, 0].numel() <= _SMALL_VOLUME if is_lone else False
    return is_small and inputs.device.type == "cpu" and inputs.dtype is torch.float32


def with_companion(inputs: Tensor) -> Tensor:
    """The inputs ``(B, C, *spatial)``, twice for a lone volume that is slow."""
    return torch.cat([inputs, inputs]) if lone_volume_is_slow(inputs) else inputs
