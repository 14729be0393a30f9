"""The network under study with its windows, precision and head; it is never changed."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from voxplain.errors import ConfigError, ModelError, nearest
from voxplain.models.behavior import Behavior, seeded, tried_behavior
from voxplain.models.failures import raise_in_words, unusable
from voxplain.models.head import Head, StatedActivation, select
from voxplain.models.layout import Layout
from voxplain.models.output_place import OutputPlace, place_of_output
from voxplain.models.precision import HALF, TF32, Precision, in_float64
from voxplain.models.programs import COMPILED, as_module
from voxplain.models.rest import KnownOfNetworks, at_rest, weights_sha256
from voxplain.models.windowed_output import blended, windows_over
from voxplain.models.windows import Window
from voxplain.records.sidecar import ModelFacts

_VOLUME, _SMALL_VOLUME = 5, 50**3

Offload = Literal["auto", "never", "always", "recompute"]
"""Whether what autograd saves is kept in the memory of the CPU until the backward pass, or computed
again in it."""

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
        precision: Numeric type of the passes. ``auto`` is float32 on a CPU and bfloat16 on a GPU;
            ``tf32``, ``bfloat16`` and ``float16`` run only where they agree with float32.
        offload: What is done with what autograd saves for the backward pass; none of it changes a
            map. ``recompute`` keeps the inputs of parts of the network and runs these again,
            ``always`` keeps all of it in the memory of the CPU; ``auto`` does the first, and on a
            GPU then the second, where a single image does not fit; ``never`` does neither.
        name: Name in files and reports; the class name if None.
        classes: Names of the output classes, for reports.
        activation: What turns the output into probabilities, where a target leaves it open:
            ``softmax`` or ``sigmoid``; ``auto`` to find out.
        remarks: Sentences for the reader of a map or a prediction.

    Attributes:
        behavior: What every call needs, once :meth:`observe` has found it out.
        seed: From which the random numbers of every call of a random network start.

    Raises:
        ModelError: For a network in ``nn.DataParallel``.
        ConfigError: For an unknown precision or offload.

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
        offload: Offload = "auto",
        name: str | None = None,
        classes: Sequence[str] = (),
        activation: StatedActivation = "auto",
        remarks: Sequence[str] = (),
    ) -> None:
        if isinstance(network, nn.DataParallel):
            raise ModelError(
                "the network is wrapped in nn.DataParallel, whose threads no backward rule sees; "
                "pass network.module"
            )
        for what, given, kind in (
            ("precision", precision, Precision),
            ("offload", offload, Offload),
        ):
            if given not in get_args(kind):
                choices = nearest(str(given), get_args(kind))
                raise ConfigError(f"unknown {what} {given!r}; {choices}")
        self.network = as_module(network) if isinstance(network, COMPILED) else network
        self.head = head
        self.window = Window.model_validate(window) if isinstance(window, Mapping) else window
        self.precision: Precision = precision
        self.offload: Offload = offload
        self.name = name or type(network).__name__
        self.classes = tuple(classes)
        self.activation: StatedActivation = activation
        self.remarks = tuple(remarks)
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
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            precision=self.resolved_precision,
            head=None if self.head is None else getattr(self.head, "__name__", str(self.head)),
            window=self.window.model_dump(mode="json") if self.window else None,
            weights_sha256=weights_sha256(self.network),
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
        if isinstance(output, Tensor) and output.ndim >= 2 and len(output) == len(inputs):
            return output
        raise unusable(output, inputs)

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
        """The model for one task with its seed; observed again, as its network may have changed."""
        other = copy.copy(self)
        other.seed, other._observed = seed, False
        return other

    @property
    def windows_at_once(self) -> int:
        """How many windows go through the network in one call."""
        return self.window.batch if self.window and not self.behavior.one_by_one else 1

    def layout(self, volume: Tensor, spacing: Sequence[float] | None = None) -> Layout | None:
        """The windows over a volume ``(C, *spatial)``; None for a model without windows.

        The first time one window is computed, since its output may have another grid; the spacing
        in millimeters per voxel is for windows in mm.
        """
        if self.window is None:
            return None
        with torch.no_grad(), self.at_rest():
            return windows_over(self.window, self.admit(volume), spacing, self.place, self)

    def place(self, example: Tensor) -> OutputPlace | None:
        """Where the cells of the output lie in an input ``(1, C, *spatial)``.

        None where this is unknown, and for scores. It is found once for each shape of the input.
        """
        shape = tuple(example.shape[1:])
        if shape not in self._places:
            with torch.no_grad(), self.at_rest():
                self._places[shape] = place_of_output(self.network, self, self.admit(example))
        return self._places[shape]

    @torch.no_grad()
    def output(self, inputs: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The output for whole images, blended from windows if there are any.

        Args:
            inputs: ``(B, C, *spatial)``.
            spacing: Millimeters per voxel, for windows in mm.

        Returns:
            ``(B, K)`` or ``(B, K, *cells)``; where windows are blended, these are the cells of
            ``layout.place``.
        """
        layout = self.layout(inputs[0], spacing)
        example = inputs[:1] if layout is None else layout.example(inputs[0])
        known = {} if self._observed else self.observe(example)
        with at_rest(self.network):
            if layout is not None:
                at_once = self.windows_at_once
                return torch.stack([blended(self, image, layout, at_once) for image in inputs])
            shown = inputs if self.behavior.one_by_one else with_companion(inputs)
            if len(inputs) == 1 and len(shown) in known:
                return known[len(shown)]
            return self(shown)[: len(inputs)]

    def in_double(self) -> Model:
        """The model in float64, with a copy of the network, made again when its weights change."""
        if self.dtype is torch.float64:
            return self
        return self.twin(in_float64(self.network, self._double), "float64")

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
        """The precision; ``auto`` is float64 for such networks, bfloat16 on GPUs, else float32."""
        if self.precision != "auto":
            return self.precision
        device, dtype = self.device, self.dtype
        if dtype is torch.float64:
            return "float64"
        capable = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bfloat16" if capable else "float32"

    def precise(self) -> AbstractContextManager[Any]:
        """A block whose calls of the network run in its precision, ``auto`` being float32.

        Half precisions run under autocast; on CUDA, float32 and TF32 are told apart by flags.
        """
        half = HALF.get(self.precision)
        if half is not None:
            return torch.autocast(self.device.type, dtype=half)
        if self.device.type != "cuda":
            return nullcontext()
        return TF32.set_to(self.precision == "tf32")

    def exact(self) -> AbstractContextManager[Any]:
        """A block whose calls of the network run in its own type, without lower precision."""
        return TF32.set_to(False) if self.device.type == "cuda" else nullcontext()

    def at_rest(self) -> AbstractContextManager[None]:
        """A block in evaluation mode without parameter gradients; several threads may be in one."""
        return at_rest(self.network)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def lone_volume_is_slow(inputs: Tensor) -> bool:
    """Whether one input takes longer than two: a small float32 volume on a CPU.

    torch convolves ``B * C * D * H <= 20480`` cells of a lone volume without oneDNN, which takes
    four times as long as with it; from two volumes on it always uses oneDNN.
    """
    is_lone = len(inputs) == 1 and inputs.ndim == _VOLUME
    is_small = inputs[0, 0].numel() <= _SMALL_VOLUME if is_lone else False
    return is_small and inputs.device.type == "cpu" and inputs.dtype is torch.float32


def with_companion(inputs: Tensor) -> Tensor:
    """The inputs ``(B, C, *spatial)``, twice for a lone volume that is slow."""
    return torch.cat([inputs, inputs]) if lone_volume_is_slow(inputs) else inputs
