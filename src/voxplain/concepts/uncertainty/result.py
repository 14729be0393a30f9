"""The uncertainty of a prediction: maps on the grid, numbers, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxplain.concepts.uncertainty.entropy import KINDS, Classes, SampledProbabilities
from voxplain.concepts.uncertainty.quality import ComparedPrediction
from voxplain.concepts.uncertainty.sampling import Sampling
from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.io import write_map
from voxplain.io.facts import grid_facts, software, value_range
from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.records.sidecar import Cost, ModelFacts, Sidecar, TargetFacts
from voxplain.records.uncertainty import QualityRecord, UncertaintyRecord, VolumeRecord

MEANINGS = {
    "total": "entropy of the mean probability",
    "aleatoric": "mean entropy of the sampled probabilities",
    "epistemic": "mutual information of the prediction and the sample",
}
_FORMULAS = {"total": "H[p]", "aleatoric": "E H[p_t]", "epistemic": "H[p] - E H[p_t]"}


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How far a prediction varies over samples.

    Attributes:
        probability: p, ``(classes, *spatial)`` float64 on the grid of the image; ``(classes,)`` for
            a classifier.
        predicted: Where each class is predicted by p, of the same shape, bool.
        total: H[p] in nats, ``(*spatial)``.
        aleatoric: E H[p_t] in nats.
        epistemic: H[p] - E H[p_t] in nats.
        count: Samples that show each voxel.
        image: The image.
        model: The network; the first one of an ensemble.
        record: All numbers.
        compared: The prediction beside the reference, where one was given.
    """

    probability: Tensor
    predicted: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    count: Tensor
    image: Image
    model: ModelFacts
    record: UncertaintyRecord
    compared: ComparedPrediction | None = None

    @property
    def quality(self) -> QualityRecord | None:
        """How far the uncertainty can be trusted, for a segmentation with a reference."""
        return self.record.quality

    @property
    def volumes(self) -> tuple[VolumeRecord, ...]:
        """The volume of every object over the samples."""
        return tuple(self.record.volumes)

    def map(self, kind: str) -> Tensor:
        """One of the uncertainties by name: ``total``, ``aleatoric`` or ``epistemic``."""
        maps = {"total": self.total, "aleatoric": self.aleatoric, "epistemic": self.epistemic}
        return maps[kind]

    def save(self, folder: str | Path, case: str = "case") -> Path:
        """Writes the three maps as NIfTI with sidecars on the grid of the scan, and all numbers.

        Args:
            folder: Created if it does not exist.
            case: The id of the case, for the names of the files.

        Returns:
            The path of the numbers, ``<case>_uncertainty.json``.

        Raises:
            InputError: If there is a file of this name that is no file.
        """
        folder, files = Path(folder), dict[str, str]()
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder.name} is a file; maps are written into a folder")
        if self.total.ndim:
            for kind in KINDS:
                name = f"{safe(case)}_desc-uncertainty-{kind}_map"
                restored = self.image.restore(self.map(kind)[None].float())
                sidecar = self._sidecar(kind, restored)
                path = write_map(restored, self.image.source_grid, folder / name, sidecar)
                files[kind] = path.name
        record = self.record.model_copy(update={"case": case, "files": files})
        text = record.model_dump_json(indent=2) + "\n"
        return atomic_write(folder / f"{safe(case)}_uncertainty.json", text)

    def _sidecar(self, kind: str, values: Tensor) -> Sidecar:
        record = self.record
        return Sidecar(
            method=f"{kind}_uncertainty",
            label=f"{kind} uncertainty",
            meaning=MEANINGS[kind],
            formula=_FORMULAS[kind],
            paper="Kendall and Gal, 2017",
            parameters={"method": record.method, "samples": record.samples, "seed": record.seed}
            | record.parameters,
            stream=[],
            target=TargetFacts(
                kind="prediction",
                in_words=_asked(record),
                parameters={"label": record.label},
                score=record.mean[kind],
            ),
            channels=(kind,),
            units="nats",
            sign="positive",
            resampling="value",
            range=value_range(values),
            grid=grid_facts(self.image.source_grid, [step.name for step in self.image.history]),
            model=self.model,
            cost=Cost(passes=record.samples, seconds=0.0),
            software=software(),
            warnings=record.remarks,
        )


def _asked(record: UncertaintyRecord) -> str:
    if record.label is None:
        return "the prediction of all classes"
    return f"the prediction of {record.classes[record.label]} against the rest"


def summed_up(
    model: str,
    classes: Classes,
    sampling: Sequence[Sampling],
    samples: int,
    seed: int,
    sums: SampledProbabilities,
    counted: Tensor,
) -> UncertaintyRecord:
    """The numbers of an uncertainty, without volumes and quality.

    Args:
        model: Its name.
        classes: What the probabilities are of.
        sampling: What was sampled.
        samples: How many.
        seed: Of the draws.
        sums: Over the samples.
        counted: Voxels that are summed up, ``(*spatial)`` bool.
    """
    predicted = classes.predicted(sums.mean)[list(classes.objects)].any(dim=0) & counted
    maps = dict(sums.uncertainties())
    dense = bool(counted.ndim)
    means = {kind: float(values[counted].mean()) for kind, values in maps.items()}
    inside = {kind: float(values[predicted].mean()) for kind, values in maps.items()}
    seen = float((sums.count == samples)[counted].double().mean())
    parameters: dict[str, float | str | bool | list[int] | None] = {}
    for each in sampling:
        parameters |= each.model_dump(mode="json", exclude={"kind"})
    remarks = [] if seen == 1 else [f"{seen:.1%} of the voxels are shown by every sample"]
    return UncertaintyRecord(
        method="+".join(each.kind for each in sampling),
        parameters=parameters,
        samples=samples,
        seed=seed,
        model=model,
        label=classes.label,
        classes=list(classes.names),
        probabilities=None if dense else sums.mean.tolist(),
        mean=means,
        in_object=inside if dense and bool(predicted.any()) else None,
        seen=seen,
        remarks=remarks,
    )
