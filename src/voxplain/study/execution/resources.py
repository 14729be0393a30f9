"""What tasks read, as plain data that travels, and what a process keeps of it between tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxplain.attribution import Prediction
from voxplain.engine.context import Context
from voxplain.image import Image
from voxplain.models.rest import state_of
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import ImageSource
from voxplain.study.planning.network_calls import predict_case
from voxplain.study.planning.networks import LoadedModel, NetworkSource
from voxplain.study.planning.tasks import Combination, CombinationId


@dataclass(frozen=True)
class CombinationSpec:
    """What all tasks of a combination share: plain data, without tensors and open files.

    Attributes:
        folder: The run directory.
        combination: What is explained.
        limit: Seconds that an explanation, or each metric, may take; None for no limit.
        image: Where the image comes from.
        network: Where the network comes from that is explained.
        compared: Other networks, for metrics that compare with them.
        references: Other images, for methods and metrics that compare with them.
    """

    folder: Path
    combination: Combination
    limit: float | None
    image: ImageSource
    network: NetworkSource
    compared: tuple[NetworkSource, ...] = ()
    references: tuple[ImageSource, ...] = ()

    @classmethod
    def of(cls, checked: CheckedStudy, combination: Combination, folder: Path) -> CombinationSpec:
        """The shared part of the tasks of a combination of a study."""
        loaded = checked.models[combination.model]
        return cls(
            folder.absolute(),
            combination,
            checked.study.execution.timeout,
            checked.image_source(combination.case),
            loaded.source,
            tuple(other.source for other in loaded.comparable(checked.models)),
            tuple(checked.reference_sources),
        )

    @property
    def networks(self) -> tuple[NetworkSource, ...]:
        """All networks."""
        return (self.network, *self.compared)

    @property
    def files(self) -> list[Path]:
        """Every file that images and networks come from."""
        sources: list[ImageSource | NetworkSource] = [self.image, *self.references, *self.networks]
        return [file for source in sources for file in source.files]


@dataclass(eq=False)
class LoadedResources:
    """The networks and images that a process keeps from one task to the next.

    Consecutive tasks of one combination load nothing again. One case is in memory at a time; of the
    networks, those stay that the present task may need.

    Attributes:
        networks: By where they come from, in pairs.
        references: Images that methods compare with, likewise.
        predictions: Those that the check of the study has made.
    """

    networks: list[tuple[NetworkSource, LoadedModel]] = field(default_factory=list)
    references: Sequence[tuple[ImageSource, Image]] = ()
    predictions: Mapping[CombinationId, Prediction] = field(default_factory=dict)
    _image: tuple[ImageSource, Image] | None = None
    _prepared: tuple[NetworkSource, Image] | None = None
    _context: tuple[Hashable, Context] | None = None

    @classmethod
    def of(cls, checked: CheckedStudy) -> LoadedResources:
        """What the check of a study has loaded."""
        return cls(
            [(loaded.source, loaded) for loaded in checked.models.values()],
            list(zip(checked.reference_sources, checked.references, strict=True)),
            checked.predictions,
        )

    def image(self, source: ImageSource) -> Image:
        """The image of a case.

        Raises:
            InputError: If it cannot be read, or has changed since the study was checked.
        """
        if self._image is None or self._image[0] != source:
            self._image = self._prepared = self._context = None  # before the next one is read
            self._image = (source, source.read())
        return self._image[1]

    def network(self, common: CombinationSpec) -> LoadedModel:
        """The network that is explained.

        Raises:
            ModelError: If it cannot be loaded, or has changed since the study was checked.
        """
        return self.opened(common.network, common.networks)

    def compared(self, common: CombinationSpec) -> list[LoadedModel]:
        """The networks that metrics compare with."""
        return [self.opened(source, common.networks) for source in common.compared]

    def prepared(self, common: CombinationSpec) -> Image:
        """The image after the preprocessing of the network."""
        image = self.image(common.image)
        if self._prepared is None or self._prepared[0] != common.network:
            self._prepared = (common.network, self.network(common).prepare(image))
        return self._prepared[1]

    def context(self, common: CombinationSpec) -> Context:
        """The network opened on the prepared image; what it has found out serves the next task."""
        loaded, image = self.network(common), self.prepared(common)
        opened_for = (common.combination.id, common.network, state_of(loaded.model.network))
        if self._context is None or self._context[0] != opened_for:
            self._context = None  # before the next one is held
            context = Context.open(loaded.model, image, common.combination.draw_seed)
            self._context = (opened_for, context)
        return self._context[1]

    def prediction(self, common: CombinationSpec) -> Prediction:
        """The prediction for a combination, made now unless the check has made it."""
        prediction = self.predictions.get(common.combination.id)
        if prediction is not None:
            return prediction
        return predict_case(self.network(common), self.prepared(common), common.combination.target)

    def prepared_references(self, common: CombinationSpec) -> list[Image]:
        """The images that methods compare with, after the preprocessing of the network."""
        if [source for source, _ in self.references] != [*common.references]:
            self.references = [(source, source.read()) for source in common.references]
        return [self.network(common).prepare(image) for _, image in self.references]

    def opened(self, source: NetworkSource, needed: Sequence[NetworkSource]) -> LoadedModel:
        """A network, loaded unless it is in memory.

        Args:
            source: Where it comes from.
            needed: The networks that the present task may need; others are dropped.
        """
        loaded = next((loaded for held, loaded in self.networks if held == source), None)
        if loaded is None:
            self._context = None
            self.networks = [pair for pair in self.networks if pair[0] in needed]
            loaded = source.load()
            self.networks.append((source, loaded))
        return loaded
