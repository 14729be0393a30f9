"""The cases of a study as a cohort: as one network sees them, with labels on the same voxels."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.study.config.cases import CaseConfig
from voxplain.study.planning.images import ImageSource
from voxplain.study.planning.messages import errors_at
from voxplain.study.planning.networks import LoadedModel


def cohort_of(sources: Sequence[ImageSource], loaded: LoadedModel) -> Cohort:
    """Cases that are read, and prepared for the network, when they are needed.

    Args:
        sources: Where their images come from.
        loaded: The network.
    """
    by_id = {str(source.case.id): source for source in sources}
    patients = {name: source.case.patient or name for name, source in by_id.items()}

    def load(name: str) -> CohortCase:
        source = by_id[name]
        with errors_at(f"case {name}"):
            image = loaded.prepare(source.read())
            return _case(name, patients[name], source.case, image)

    return Cohort(patients, load)


def _case(name: str, patient: str, case: CaseConfig, image: Image) -> CohortCase:
    labels = None
    if case.reference is not None:
        ignore = case.reference_ignore
        labels = image.project(read_mask(case.reference, image.source_grid, ignore=ignore))
    truth = {} if case.truth is None else {"class": float(case.truth)}
    return CohortCase(name, patient, image, labels, {**truth, **case.facts})
