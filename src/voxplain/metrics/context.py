"""One image, one network and one target; equal queries of metrics are run once."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from voxplain.engine.context import BoundTarget, Context, References, references_of
from voxplain.engine.identity import identity, image_key
from voxplain.engine.method import Method
from voxplain.engine.passes.base import Passes
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamInput
from voxplain.metrics.case import Case
from voxplain.metrics.maps import AnyMap, MapField, Maps, Undefined, map_field, method_of
from voxplain.metrics.other_networks import Networks, OtherNetwork, other_networks
from voxplain.metrics.prediction import ImagePredictor
from voxplain.models.model import Model
from voxplain.models.output_place import OutputPlace
from voxplain.targets.field import predicted_mask

T = TypeVar("T")


class BaseQuery(ABC):
    """A query to the network; subclasses are frozen dataclasses, compared by value.

    Attributes:
        per_map: Whether the result depends on the map that is scored.
        explains: Whether :meth:`cost` counts explanations by all methods, and not forwards.
    """

    per_map: ClassVar[bool] = False
    explains: ClassVar[bool] = False

    @abstractmethod
    def cost(self, context: Context) -> int:
        """About how many forwards (or explanations) it takes, of each network that it runs."""

    def networks(self, networks: Sequence[OtherNetwork]) -> int:
        """How many networks it runs, if these are the other networks."""
        return 1


class Query(BaseQuery):
    """A query with one result for all maps of an image."""

    @abstractmethod
    def run(self, context: MetricContext) -> Any:
        """Runs the network; called by :meth:`MetricContext.run_query`."""


class MapQuery(BaseQuery):
    """A query with a result for each map, such as removal in the order of the map."""

    per_map: ClassVar[bool] = True

    @abstractmethod
    def run(self, context: MetricContext, field: MapField) -> Any:
        """Runs the network; called by :meth:`MetricContext.run_map_query`."""


class MetricContext(ImagePredictor):
    """One image of one network with one bound target, and the maps that are scored on it.

    Made by :meth:`open`.

    Attributes:
        case: What is known of the image.
        reference: Reference mask on the grid of the network, ``(*spatial)`` bool, or None.
        ignored: The voxels of which it says nothing, ``(*spatial)`` bool; None for none.
        fields: The maps by name.
        controls: Maps that explain nothing, scored beside them.
        methods: The methods that made the maps, for metrics that explain again.
        networks: Other networks that are compared with this one, and how they differ.
    """

    def __init__(
        self,
        engine: Context,
        stream_input: StreamInput,
        bound: BoundTarget,
        passes: Passes,
        case: Case,
        reference: Tensor | None,
        networks: Sequence[OtherNetwork],
    ) -> None:
        super().__init__(engine, stream_input, bound, passes)
        self.case, self.reference = case, reference
        self.ignored = case.ignored(engine)
        self.networks = tuple(networks)
        self.fields: dict[str, MapField] = {}
        self.controls: tuple[MapField, ...] = ()
        self.methods: tuple[Method, ...] = ()
        self._cache: dict[object, Any] = {}

    @classmethod
    def open(
        cls,
        context: Context,
        bound: BoundTarget,
        maps: Maps | None = None,
        case: Case | None = None,
        *,
        references: References = None,
        networks: Networks = (),
        seed: int = 0,
    ) -> MetricContext:
        """What metrics need to score maps of one image.

        Args:
            context: The network and one image.
            bound: What is explained: ``context.bind(target)``.
            maps: The maps by name, from this network or from elsewhere.
            case: What is known of the image.
            references: Other images on the same grid.
            networks: Other networks that are compared with this one, and how they differ.
            seed: Of every random draw.

        Raises:
            ConfigError: If a reference or another network does not fit.
            InputError: If a map or the reference mask lies on another grid.
        """
        case = case or Case()
        image = context.inputs[0]
        key = f"{seed}/{image_key(image)}"
        others = references_of(references, image)
        opened = cls(
            context,
            StreamInput(image, 0, key, others, spacing=context.spacing),
            bound,
            context.passes(context.model, Plain(), bound.field, rebind=bound.rebind),
            case,
            case.reference(context),
            other_networks(networks, context.model),
        )
        maps = maps or {}
        methods = [method_of(source) for source in maps.values()]
        opened.methods = tuple(method for method in methods if method is not None)
        opened.fields = {name: opened.map_field(name, source) for name, source in maps.items()}
        return opened

    def map_field(self, name: str, source: AnyMap) -> MapField:
        """A map on the grid of the network; it is not added to :attr:`fields`.

        Raises:
            InputError: If it lies on another grid.
        """
        return map_field(name, source, self.engine, self.input)

    def counted(self, values: Tensor) -> Tensor:
        """Values ``(..., *spatial)`` at the voxels that the reference speaks of, ``(..., n)``.

        Where it speaks of all of them, they are returned as they are.
        """
        return values if self.ignored is None else values[..., ~self.ignored.to(values.device)]

    def spread(self, chosen: Tensor) -> Tensor:
        """The reverse of :meth:`counted` for bool ``(n,)``: ``(*spatial)``, False where ignored."""
        if self.ignored is None:
            return chosen
        whole = torch.zeros(self.ignored.shape, dtype=torch.bool, device=chosen.device)
        whole[~self.ignored.to(chosen.device)] = chosen
        return whole

    @property
    def all_fields(self) -> tuple[MapField, ...]:
        """The maps and the controls beside them."""
        return (*self.fields.values(), *self.controls)

    @property
    def predicted(self) -> Tensor:
        """Where the class of the target is predicted on the unchanged image, ``(*spatial)`` bool.

        Raises:
            Undefined: If the output is not dense, or the target is about no class.
        """
        if self._predicted_object is None:
            raise Undefined(
                "the target is not about a class of a dense output"
                if not self.bound.unperturbed.is_unclear(self.bound.target.activation)
                else "it is not known whether the output holds probabilities; state the activation"
            )
        return self._predicted_object

    @property
    def predicted_class(self) -> int:
        """The class that a classifier prefers; of one-logit networks the side of the threshold.

        Raises:
            Undefined: If the output is dense, or may be a probability or a score.
        """
        if self.bound.unperturbed.is_dense:
            raise Undefined("a dense output has no class of the whole image")
        bound, output = self.bound, self.bound.unperturbed.output[self.input.row][None]
        if output.shape[1] > 1:
            return int(output.argmax(dim=1))
        if bound.unperturbed.is_unclear(bound.target.activation):
            raise Undefined(
                "it is not known whether the output is a probability; state the activation"
            )
        return int(predicted_mask(output, 1, bound.activation, bound.target.threshold))

    @property
    def place(self) -> OutputPlace:
        """Where the cells of the output lie in the image.

        Raises:
            Undefined: If the output is not dense, or this is unknown.
        """
        if self.bound.unperturbed.place is None:
            raise Undefined("the place of the output in the image is unknown")
        return self.bound.unperturbed.place

    @cached_property
    def correct(self) -> bool | None:
        """Whether the prediction is right; None where the truth is not known.

        A classifier is right if it prefers the true class. A dense output is right if the Dice of
        the predicted object with the reference is at least 0.5, or there is neither, where the
        output lies.
        """
        if not self.bound.unperturbed.is_dense:
            unknown = self.case.truth is None or (
                self.bound.unperturbed.output.shape[1] == 1
                and self.bound.unperturbed.is_unclear(self.bound.target.activation)
            )
            return None if unknown else self.predicted_class == self.case.truth
        predicted = self._predicted_object
        place = self.bound.unperturbed.place
        if self.reference is None or predicted is None or place is None:
            return None
        reference = place.on_output(self.reference).to(predicted.device)
        if self.ignored is not None:
            predicted = predicted & ~place.on_output(self.ignored).to(predicted.device)
        return bool(4 * (reference & predicted).sum() >= reference.sum() + predicted.sum())

    def with_model(self, model: Model) -> MetricContext:
        """The same image and weight field for another network; nothing is cached yet."""
        other = self.with_bound(self.bound)
        if model.seed != self.engine.model.seed:
            model = model.for_task(self.engine.model.seed)
        other.engine = Context(
            model, self.input.image[None], self.engine.spacing, self.engine.image
        )
        model.observe(other.engine.example)
        other.passes = self.passes.with_model(model)
        return other

    def with_maps(self, fields: Mapping[str, MapField]) -> MetricContext:
        """The same context with other maps and no controls."""
        other = self.with_bound(self.bound)
        other.fields, other.controls = dict(fields), ()
        return other

    def with_own_prediction(self) -> MetricContext:
        """The same context with the output of its own network, after :meth:`with_model`.

        The weight field stays: S is the score of the same voxels, given by the other network.
        """
        unperturbed = self.engine.look([self.bound.target])
        field, explained = self.bound.field, unperturbed.output
        if field.layer is not None:
            explained = unperturbed.activations[field.layer]
        weights = self.bound.rebind(explained) if self.bound.rebind else field
        scores = tuple(weights.score(explained).tolist())
        return self.with_bound(replace(self.bound, unperturbed=unperturbed, scores=scores))

    def with_bound(self, bound: BoundTarget) -> MetricContext:
        """The same context with another bound target; nothing is cached yet."""
        other = copy.copy(self)
        other.bound, other._cache = bound, {}
        for name in ("_predicted_object", "correct"):
            other.__dict__.pop(name, None)
        return other

    def run_query(self, query: Query) -> Any:
        """The result of a query, which is run the first time."""
        return self.cached(("query", identity(query)), lambda: query.run(self))

    def run_map_query(self, query: MapQuery, field: MapField) -> Any:
        """The result of a query for one map; it is run the first time."""
        return self.cached(("query", identity(query), field), lambda: query.run(self, field))

    def keep_result(self, query: Query, result: Any) -> None:
        """Takes a result as that of a query, which will not be run."""
        self._cache["query", identity(query)] = result

    def cached(self, key: object, make: Callable[[], T]) -> T:
        """What was made under this key before, or is made now."""
        if key not in self._cache:
            self._cache[key] = make()
        result: T = self._cache[key]
        return result
