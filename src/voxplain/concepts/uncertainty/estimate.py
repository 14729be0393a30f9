"""``uncertainty``: how far the prediction of a network varies, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from voxplain.concepts.uncertainty.entropy import Classes, SampledProbabilities
from voxplain.concepts.uncertainty.quality import quality_of
from voxplain.concepts.uncertainty.reference import Roi, TrueLabels, region_of_interest
from voxplain.concepts.uncertainty.result import Uncertainty, summed_up
from voxplain.concepts.uncertainty.sampling import (
    Method,
    Sample,
    Sampling,
    dropout_found,
    parse_sampling,
    samples_of,
)
from voxplain.concepts.uncertainty.volumes import SampledVolumes
from voxplain.engine.context import Context
from voxplain.errors import ConfigError, ModelError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import UnperturbedOutput
from voxplain.targets.field import Activation

_SAMPLES = 16


def uncertainty(
    model: Model | nn.Module | Sequence[Model | nn.Module],
    image: Image,
    method: Method | Sequence[Method] = "augmentation",
    samples: int | None = None,
    seed: int = 0,
    reference: ArrayLike | Tensor | str | Path | int | None = None,
    *,
    label: int | None = None,
    value: int | None = None,
    ignore: int | None = None,
    activation: Activation = "auto",
    threshold: float = 0.5,
    roi: Roi = "foreground",
) -> Uncertainty:
    """How far a prediction varies over sampled networks or changed images.

    p = mean p_t; total uncertainty H[p], aleatoric E H[p_t], epistemic H[p] - E H[p_t], in nats,
    per voxel for a segmentation and per image for a classifier. Predictions for changed images are
    moved back before they are averaged, and voxels that left the field of view do not count.

    Args:
        model: The network; several for an ensemble.
        image: On the grid that the network takes.
        method: ``dropout``, ``ensemble`` or ``augmentation``, with parameters as
            :class:`Augmentation`; several joined by ``+`` vary together.
        samples: How many predictions; 16, or the number of networks of an ensemble, if None.
        seed: Of the draws.
        reference: What is true, for the quality of the uncertainty: labels ``(*spatial)`` on the
            grid of the image whose values are the classes, or that hold one class; a mask per class
            where classes may overlap; a file on the grid of the scan; the number of the true class
            for a classifier.
        label: A class that is asked about against the rest; all classes if None.
        value: The label of that class in the reference; every non-zero label if None.
        ignore: The label of the reference whose voxels do not count.
        activation: What makes probabilities of the output, as of a target.
        threshold: Probability above which a class is predicted under sigmoid.
        roi: Voxels that are summed up and judged; maps are of the whole image.

    Raises:
        ConfigError: If the method, the number of samples or the class does not fit.
        ModelError: If nothing drops units, or networks of an ensemble differ in their output.
        InputError: If the reference does not fit.
        TargetError: If it is not known where the output lies, or whether it is a probability.

    Paper: Kendall and Gal, What uncertainties do we need, 2017; Depeweg et al., Decomposition of
    uncertainty, 2018.

    Example:
        >>> from voxplain import zoo
        >>> image = Image.from_array(torch.rand(1, 24, 24))
        >>> found = uncertainty(zoo.unet2d(classes=2), image, samples=4)
        >>> bool((found.total >= found.epistemic).all())
        True
    """
    networks = [model] if isinstance(model, (Model, nn.Module)) else list(model)
    sampling = parse_sampling(method)
    count = _count(samples, sampling, len(networks))
    contexts = [Context.open(each, image, seed) for each in networks]
    outputs = [context.look() for context in contexts]
    places = dropout_found(contexts, sampling)
    _check_alike(outputs, label)
    classes = [Classes.of(seen, label, activation, threshold) for seen in outputs]
    run = _SampledImage(contexts, outputs, classes, sampling, count, seed)
    run.go()
    inside = region_of_interest(roi, contexts[0].inputs[0], outputs[0].is_dense)
    maps, mean = dict(run.sums.uncertainties()), run.sums.mean
    counted, compared = inside & (run.sums.count > 0), None
    if reference is not None:
        truth = TrueLabels(reference, value, ignore)
        compared = truth.compared(classes[0], outputs[0], mean, maps, counted)
    record = summed_up(contexts[0].model.name, classes[0], sampling, count, seed, run.sums, counted)
    has_quality = compared is not None and outputs[0].is_dense and compared.wrong.numel() > 0
    record = record.model_copy(
        update={
            "parameters": record.parameters | places,
            "volumes": run.volumes.records(classes[0].predicted(mean)) if run.volumes else [],
            "quality": quality_of(compared) if compared is not None and has_quality else None,
        }
    )
    return Uncertainty(
        probability=mean,
        predicted=classes[0].predicted(mean),
        total=maps["total"],
        aleatoric=maps["aleatoric"],
        epistemic=maps["epistemic"],
        count=run.sums.count,
        image=image,
        model=contexts[0].model.facts,
        record=record,
        compared=compared,
    )


@dataclass(eq=False)
class _SampledImage:
    """The samples of one image, added up."""

    contexts: Sequence[Context]
    outputs: Sequence[UnperturbedOutput]
    classes: Sequence[Classes]
    sampling: Sequence[Sampling]
    count: int
    seed: int

    def __post_init__(self) -> None:
        self.sums = SampledProbabilities(self.classes[0])
        self.volumes: SampledVolumes | None = None
        seen = self.outputs[0]
        if seen.is_dense:
            clean, _ = self._on_image(0, seen.output[0])
            predicted = self.classes[0].predicted(clean)
            self.volumes = SampledVolumes(self.classes[0], seen, predicted)

    def go(self) -> None:
        """Runs every sample."""
        models = [context.model for context in self.contexts]
        for sample in samples_of(models, self.contexts[0], self.sampling, self.count, self.seed):
            probability, seen = self._sampled(sample)
            self.sums.add(probability, seen)
            if self.volumes is not None:
                self.volumes.add(probability, seen)

    def _sampled(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Probabilities ``(classes, *spatial)`` on the image, and the voxels that are shown."""
        context = self.contexts[sample.network]
        changed = sample.change.changed(context.inputs[0], str(self.seed), 0)
        with torch.no_grad(), sample.model.exact():
            output = sample.model.output(changed[None], context.spacing)[0]
        probability, covered = self._on_image(sample.network, output)
        if not covered.ndim:
            return probability, covered
        returned = sample.change.returned(probability, 0)
        shown = sample.change.in_view(probability, 0)
        whole = bool(covered.all())
        return returned, shown if whole else shown & self._moved_back(sample, covered)

    def _moved_back(self, sample: Sample, covered: Tensor) -> Tensor:
        return sample.change.returned(covered[None].double(), 0)[0] > 1 - 1e-6

    def _on_image(self, network: int, output: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities at the voxels of the image, and the voxels that the output covers."""
        probability = self.classes[network].probabilities(output)
        if output.ndim == 1:
            return probability, torch.ones((), dtype=torch.bool, device=output.device)
        place = self.outputs[network].known_place("uncertainty")
        ones = torch.ones_like(probability[:1])
        return place.on_image(probability), place.on_image(ones)[0] > 0


def _count(samples: int | None, sampling: Sequence[Sampling], networks: int) -> int:
    """How many samples there are.

    Raises:
        ConfigError: If these are fewer than two, or an ensemble has another number of networks.
    """
    only_ensemble = [each.kind for each in sampling] == ["ensemble"]
    count = (networks if only_ensemble else _SAMPLES) if samples is None else samples
    if only_ensemble and networks < 2:
        raise ConfigError("an ensemble needs at least two networks; pass a list of them")
    if only_ensemble and count != networks:
        raise ConfigError(f"an ensemble of {networks} networks has {networks} samples, not {count}")
    if count < 2:
        raise ConfigError(f"uncertainty needs at least 2 samples, not {count}")
    return count


def _check_alike(outputs: Sequence[UnperturbedOutput], label: int | None) -> None:
    shapes = [tuple(seen.output.shape[1:]) for seen in outputs]
    if len({*shapes}) > 1:
        listed = ", ".join(map(str, shapes))
        raise ModelError(f"the networks of an ensemble have outputs of different shapes: {listed}")
    classes = max(2, shapes[0][0])
    if label is not None and not 0 <= label < classes:
        raise ConfigError(f"class {label} does not exist; the output has 0 to {classes - 1}")
