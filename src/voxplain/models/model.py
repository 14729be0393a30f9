"""The network under study with its windows, precision and head; it is never changed."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.errors import ConfigError, ModelError, nearest
from voxplain.models.behavior import Behavior, seeded, tried_behavior
from voxplain.models.failures import raise_in_words
from voxplain.models.head import Head, described, select
from voxplain.models.hooks import copy_network
from voxplain.models.output_place import OutputPlace, place_of_output
from voxplain.models.precision import HALF, Precision
from voxplain.models.programs import COMPILED, as_module
from voxplain.models.rest import KnownOfNetworks, at_rest, state_of
from voxplain.models.windows import Layout, Margins, Window
from voxplain.records.sidecar import ModelFacts

_VOLUME, _SMALL_VOLUME = 5, 50**3

_ONE_COPY = threading.Lock()
"""Held while a copy in float64 is made, so that two threads make one."""
_BEHAVIOR = KnownOfNetworks[Behavior]()
"""By what is explained of the output, and by the kind of the input."""


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

    Attributes:
        behavior: What every call needs, once :meth:`observe` has found it out.
        seed: From which the random numbers of every call of a random network start.

    Raises:
        ModelError: For a network in ``nn.DataParallel``.
        ConfigError: For an unknown precision.

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
        if precision not in get_args(Precision):
            raise ConfigError(
                f"unknown precision {precision!r}; {nearest(str(precision), get_args(Precision))}"
            )
        self.network = as_module(network) if isinstance(network, COMPILED) else network
        self.head = head
        self.window = Window.model_validate(window) if isinstance(window, Mapping) else window
        self.precision: Precision = precision
        self.name = name or type(network).__name__
        self.classes = tuple(classes)
        self.behavior = Behavior()
        self.seed = 0
        self._observed = False
        self._double: dict[Hashable, nn.Module] = {}
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
        """Images on the device of the network and in its type.

        For a network without floating-point tensors they keep theirs; integers become float32.
        """
        has_type = any(tensor.is_floating_point() for tensor in _tensors(self.network))
        keeps_type = not has_type and images.is_floating_point()
        return images.to(self.device, images.dtype if keeps_type else self.dtype)

    @property
    def differentiable(self) -> bool:
        """False for forward-only black boxes (ONNX)."""
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

        A network that writes into its inputs gets a copy of them. Where images of one batch
        influence each other, each goes through alone; a random network draws the same numbers in
        every call.

        Args:
            inputs: ``(B, C, *spatial)``.

        Raises:
            ModelError: If the output is no tensor ``(B, K, ...)``, or the network fails; its own
                error is the cause.
        """
        if len(inputs) > 1 and self.behavior.one_by_one:
            return torch.cat([self(image) for image in torch.split(inputs, 1)])
        if self.behavior.writes or not self._observed:
            with torch._C.DisableTorchFunction():  # the copy is no function of the network
                inputs = inputs.clone()
        if not self.behavior.is_random:
            return self._call(inputs)
        with seeded(self.seed, inputs.device):
            return self._call(inputs)

    def _call(self, inputs: Tensor) -> Tensor:
        try:
            output = self.network(inputs)
            if self.head is not None:
                output = select(output, self.head)
        except Exception as error:
            raise_in_words(error, inputs)
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"the network returns {described(output)}; choose a part with head= (an index, "
                "a key or a function)"
            )
        if output.ndim < 2 or len(output) != len(inputs):
            raise ModelError(
                f"the network maps {tuple(inputs.shape)} to {tuple(output.shape)}; voxplain needs "
                "(B, K) scores or a dense (B, K, *spatial) output"
            )
        return output

    def observe(self, example: Tensor) -> Mapping[int, Tensor]:
        """Finds out, the first time, how the network behaves; copies of the model know it as well.

        Args:
            example: ``(1, C, *spatial)``, what one call sees.

        Returns:
            Its output by the number of images in the call, where it was computed just now.

        Raises:
            ModelError: If the network fails on it.
        """
        if self._observed:
            return {}
        outputs: dict[int, Tensor] = {}

        def find_out() -> Behavior:
            trial = tried_behavior(self.network, self._call, example)
            outputs.update(trial.outputs)
            return trial.behavior

        kind = (self.head, tuple(example.shape), example.dtype, example.device)
        self.behavior = _BEHAVIOR.get(self.network, kind, find_out)
        self._observed = True
        return outputs

    def for_task(self, seed: int) -> Model:
        """The model for one task, to be observed again, as its network may have changed.

        Args:
            seed: From which the random numbers of every call of a random network start.
        """
        other = copy.copy(self)
        other.seed, other._observed = seed, False
        return other

    @property
    def windows_at_once(self) -> int:
        """How many windows go through the network in one call."""
        return self.window.batch if self.window and not self.behavior.one_by_one else 1

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
            ModelError: If the network returns another resolution for a window.
        """
        place = self.place(window)
        margins = place.margins if place else None
        if margins is not None:
            return margins if any(map(any, margins)) else None
        cells = place.cells if place else self._cells(window)
        if not cells:
            return None
        raise ModelError(
            "sliding windows need an output of the resolution of the window, and this network "
            f"maps {tuple(window.shape[2:])} to {cells}"
            + ("" if place else ", whose place in the window is unknown")
        )

    def _cells(self, window: Tensor) -> tuple[int, ...]:
        """Spatial shape of the output; empty for scores."""
        with torch.no_grad(), self.at_rest():
            return tuple(self(self.admit(window)).shape[2:])

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
        layout = self.layout(inputs[0], spacing)
        known = {} if self._observed else self.observe(example_of(inputs, layout))
        with at_rest(self.network):
            if layout is not None:
                return torch.stack([self._assembled(image, layout) for image in inputs])
            shown = inputs if self.behavior.one_by_one else with_companion(inputs)
            if len(inputs) == 1 and len(shown) in known:
                return known[len(shown)]
            return self(shown)[: len(inputs)]

    def _assembled(self, image: Tensor, layout: Layout) -> Tensor:
        padded = layout.pad(image)
        output: Tensor | None = None
        for positions in layout.batches(self.windows_at_once):
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

        The scores ``(n, K)`` of a classifier of windows count for every voxel of their window, so
        that a volume has a grid of scores: at each voxel, those of its windows, blended.
        Where a network returns less, by valid convolutions, zeros surround it.

        Raises:
            ModelError: If the network returns another resolution for a window.
        """
        output = self(windows)
        if output.ndim == 2:
            size = windows.shape[2:]
            output = output.view(*output.shape, *(1,) * len(size)).expand(-1, -1, *size)
        if output.shape[2:] == windows.shape[2:]:
            return output
        margins = self._margins(windows[:1].detach()) or ()
        return functional.pad(output, [count for pair in reversed(margins) for count in pair])

    def in_double(self) -> Model:
        """The model in float64, with a copy of the network, made again when its weights change."""
        if self.dtype is torch.float64:
            return self
        with _ONE_COPY:
            state = (state_of(self.network), weights_sha256(self.network))
            if state not in self._double:
                self._double.clear()
                self._double[state] = copy_network(self.network).double()
            return self.twin(self._double[state], "float64")

    def in_precision(self, precision: Precision) -> Model:
        """The model in another precision."""
        return self.in_double() if precision == "float64" else self.twin(self.network, precision)

    def twin(self, network: nn.Module, precision: Precision | None = None) -> Model:
        """The model with a network of the same architecture, and maybe another precision."""
        twin = copy.copy(self)
        twin.network, twin.precision = network, precision or self.precision
        twin._double = {}
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


def example_of(inputs: Tensor, layout: Layout | None) -> Tensor:
    """What one call of a network sees: the first image, or its middle window.

    Args:
        inputs: Images ``(B, C, *spatial)``.
        layout: The windows, or None.
    """
    if layout is None:
        return inputs[:1]
    middle = layout.positions[len(layout) // 2]
    return layout.cut(layout.pad(inputs[0]), [middle])


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
