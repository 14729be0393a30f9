"""Concepts of the bank against closed forms on small grids."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from voxplain.concepts.bank import BoundaryConcept, ConceptBank, signed_distance
from voxplain.concepts.bank.bank import KINDS
from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import CohortCase
from voxplain.errors import ConfigError, InputError, VoxplainWarning
from voxplain.grid import Grid
from voxplain.image import Image

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])


def case_of(
    labels: Tensor, image: Tensor | None = None, grid: Grid | None = None, **facts: Any
) -> CohortCase:
    """A case on an anisotropic grid of known orientation."""
    data = torch.ones(1, *labels.shape) if image is None else image
    found = grid or Grid(tuple(labels.shape), AFFINE)
    names = tuple(f"m{number}" for number in range(len(data)))
    return CohortCase("a", "p", Image(data, found, names), labels, facts)


def masks(case: CohortCase, *entries: dict[str, Any]) -> dict[str, Tensor | None]:
    return {concept.name: concept.of(case) for concept in ConceptBank.of(entries)}


WT = {"kind": "labels", "names": {"WT": [1, 4], "ED": 2}}


def a_box(shape: tuple[int, ...] = (21, 20, 15)) -> Tensor:
    labels = torch.zeros(shape, dtype=torch.long)
    labels[tuple(slice(size // 3, 2 * size // 3) for size in shape)] = 1
    return labels


def test_labels_are_joined_and_a_case_without_labels_knows_none() -> None:
    labels = torch.tensor([[0, 1], [2, 4]])
    found = masks(case_of(labels), WT)
    assert found["WT"].tolist() == [[False, True], [False, True]]
    assert found["ED"].tolist() == [[False, False], [True, False]]
    unlabeled = CohortCase("a", "p", Image(torch.ones(1, 2, 2), Grid.default((2, 2))))
    assert set(masks(unlabeled, WT).values()) == {None}


def test_distances_are_in_millimeters_along_every_axis() -> None:
    case = case_of(a_box())
    found = masks(
        case,
        WT,
        {"kind": "ring", "of": "WT", "within": "4mm"},
        {"kind": "rim", "of": "WT", "width": "3mm"},
        {"kind": "core", "of": "WT", "depth": "3mm"},
        {"kind": "boundary", "of": "WT", "width": "2mm"},
    )
    wt = case.labels == 1
    distance = signed_distance(wt, (2.0, 1.0, 3.0))
    assert distance is not None
    # From the middle of a face outward: 2 mm, 1 mm and 3 mm per voxel.
    assert distance[14:17, 10, 7].tolist() == [2, 4, 6]
    assert distance[10, 13:16, 7].tolist() == [1, 2, 3]
    assert distance[10, 10, 10:13].tolist() == [3, 6, 9]
    assert distance[13, 10, 7] == -2
    ring, rim, core = found["WT ring 4mm"], found["WT rim"], found["WT core"]
    boundary = found["WT boundary"]
    assert torch.equal(ring, (distance > 0) & (distance <= 4))
    assert torch.equal(rim | core, wt)
    assert not (rim & core).any()
    assert torch.equal(boundary, distance.abs() <= 2)
    assert (ring[14:17, 10, 7].tolist(), ring[10, 10, 10:12].tolist()) == (
        [True, True, False],
        [True, False],
    )


def test_voxels_are_a_length_where_the_size_is_unknown() -> None:
    labels = a_box((20, 20))
    case = case_of(labels, grid=Grid.default((20, 20)))
    (ring,) = [masks(case, WT, {"kind": "ring", "of": "WT", "within": 2})["WT ring 2 voxels"]]
    assert ring is not None
    assert ring[13:16, 10].tolist() == [True, True, False]
    with pytest.raises(ConfigError, match="'5mm' needs the pixel size"):
        masks(case, WT, {"kind": "ring", "of": "WT", "within": "5mm"})


def test_a_volume_of_one_slice_has_the_concepts_of_the_slice() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, image = a_box((20, 24)), torch.rand(1, 20, 24, generator=generator)
    image[:, :4] = 0
    entries = [
        {"kind": "labels", "names": {"WT": 1}},
        {"kind": "boundary", "of": "WT", "width": "2mm"},
        {"kind": "ring", "of": "WT", "within": "5mm"},
        {"kind": "sides", "of": "WT", "directions": ["anterior", "left"]},
        {"kind": "mirror", "of": "WT"},
        {"kind": "hemispheres"},
        {"kind": "slices", "toward": "anterior"},
        {"kind": "radius"},
        {"kind": "band", "channel": "m0"},
        {"kind": "gradient", "channel": 0, "orientation": True, "rank": 2},
        {"kind": "entropy", "channel": 0},
        {"kind": "foreground", "width": "2mm"},
        {"kind": "background"},
        {"kind": "edge", "width": "4mm"},
    ]
    flat = masks(case_of(labels, image), *entries)
    thick = masks(case_of(labels[..., None], image[..., None]), *entries)
    for name, mask in flat.items():
        other = thick[name]
        assert mask is not None
        assert other is not None
        assert torch.equal(mask, other[..., 0]), name
        assert mask.any(), name
        assert not mask.all(), name


def test_sides_follow_the_orientation_of_the_grid() -> None:
    labels = a_box((12, 12, 12))
    straight = masks(case_of(labels), WT, {"kind": "sides", "of": "WT"})
    flipped = Grid(labels.shape, AFFINE @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    turned = masks(case_of(labels, grid=flipped), WT, {"kind": "sides", "of": "WT"})
    right, left = straight["WT right"], straight["WT left"]
    assert right is not None
    assert left is not None
    assert right[6:8].any()
    assert not right[4:6].any()
    assert torch.equal(right | left, labels == 1)
    for name, other in (("right", "left"), ("anterior", "posterior"), ("superior", "superior")):
        assert torch.equal(straight[f"WT {name}"], turned[f"WT {other}"])
    unknown = case_of(labels, grid=Grid.default(labels.shape, 1.0))
    with pytest.raises(InputError, match="no known orientation"):
        masks(unknown, WT, {"kind": "sides", "of": "WT"})
    slice_ = case_of(labels[..., 6])
    with pytest.raises(InputError, match="no extent along this axis"):
        masks(slice_, WT, {"kind": "sides", "of": "WT", "directions": ["superior"]})


def test_a_mirrored_lesion_lies_in_the_other_hemisphere() -> None:
    image, labels = torch.zeros(1, 14, 10), torch.zeros(14, 10, dtype=torch.long)
    image[:, 2:12, 1:9] = 1  # the middle lies between voxels 6 and 7
    labels[3:5, 4:6] = 1
    found = masks(
        case_of(labels, image), WT, {"kind": "mirror", "of": "WT"}, {"kind": "hemispheres"}
    )
    expected = torch.zeros(14, 10, dtype=torch.bool)
    expected[9:11, 4:6] = True
    assert torch.equal(found["WT mirrored"], expected)
    right = found["right hemisphere"]
    assert right is not None
    assert right[7:12, 1:9].all()
    assert int(right.sum()) == 40


def test_bands_and_shells_share_the_foreground() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 20, 20, generator=generator)
    image[:, :, :5] = 0
    case = case_of(torch.zeros(20, 20, dtype=torch.long), image)
    for entry in (
        {"kind": "band", "channel": "m0", "parts": 4},
        {"kind": "radius", "parts": 4},
        {"kind": "slices", "toward": "right", "parts": 4},
    ):
        found = masks(case, entry)
        stacked = torch.stack([mask for mask in found.values() if mask is not None])
        assert torch.equal(stacked.sum(0), (image[0] != 0).long())
        assert stacked.flatten(1).sum(1).tolist() == pytest.approx([75] * 4, abs=1)
    with pytest.raises(InputError, match="no channel 'flair'"):
        masks(case, {"kind": "band", "channel": "flair"})


def test_windows_of_ct_are_in_hounsfield_units_of_the_file() -> None:
    grid = Grid.default((4,) * 2, 1.0)
    data = torch.tensor([[-1.0, 0.0, 0.05, 0.4]] * 4)[None]
    image = Image(data, grid, ("ct",), intensity=((1000.0, 0.0),))
    case = CohortCase("a", "p", image)
    found = {c.name: c.of(case) for c in ConceptBank.of([{"kind": "hu"}])}
    rows = {name: mask[0].tolist() for name, mask in found.items() if mask is not None}
    assert rows["air"] == [True, False, False, False]
    assert rows["soft tissue"] == [False, True, True, False]
    assert rows["bone"] == [False, False, False, True]


def test_gradients_follow_the_step_of_an_edge() -> None:
    image = torch.zeros(1, 20, 20)
    image[:, 10:] = 1
    entry = {"kind": "gradient", "channel": 0, "share": 0.2, "orientation": True, "rank": 2}
    found = masks(case_of(torch.zeros(20, 20, dtype=torch.long), image + 1e-3), entry)
    rows = found["0 gradient"]
    assert rows is not None
    assert rows.any(1).nonzero()[:, 0].tolist() == [10] or rows[9:11].any()
    assert torch.equal(found["0 gradient along axis 0"], rows)
    nothing = found["0 gradient along axis 1"]
    assert nothing is not None
    assert not nothing.any()


def test_facts_hold_for_whole_images() -> None:
    entry = {"kind": "fact", "fact": "age", "above": 60}
    other = {"kind": "fact", "fact": "sex", "values": ["M"]}
    found = masks(case_of(a_box((6, 6)), age=61.0, sex="F"), entry, other)
    assert found["age > 60"] is not None
    assert bool(found["age > 60"])
    assert found["sex = M"] is not None
    assert not bool(found["sex = M"])
    assert set(masks(case_of(a_box((6, 6))), entry, other).values()) == {None}
    with pytest.raises(ConfigError, match="state the values"):
        ConceptBank.of([{"kind": "fact", "fact": "age"}])


def save_map(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), path)


def test_a_file_comes_onto_the_grid_of_the_image(tmp_path: Path) -> None:
    labels = a_box((12, 12, 8)).numpy()
    case = case_of(torch.from_numpy(labels))
    entry = {"kind": "file", "pattern": f"{tmp_path}/{{case}}.nii.gz", "names": {"organ": 1}}
    assert masks(case, entry) == {"organ": None}
    save_map(tmp_path / "a.nii.gz", labels, AFFINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", VoxplainWarning)
        found = masks(case, entry)["organ"]
        assert torch.equal(found, torch.from_numpy(labels == 1))
        turned = AFFINE @ np.diag([-1.0, 1, 1, 1])
        turned[0, 3] = 2.0 * 11
        save_map(tmp_path / "a.nii.gz", labels[::-1], turned)
        assert torch.equal(masks(case, entry)["organ"], torch.from_numpy(labels == 1))
    fine = np.repeat(labels, 2, axis=0)
    finer = np.diag([1.0, 1.0, 3.0, 1.0])
    finer[0, 3] = -0.5
    save_map(tmp_path / "a.nii.gz", fine, finer)
    with pytest.warns(VoxplainWarning, match="lies on another grid"):
        found = masks(case, entry)["organ"]
    assert found is not None
    assert (found != torch.from_numpy(labels == 1)).float().mean() < 0.05


def test_a_file_in_another_frame_is_refused(tmp_path: Path) -> None:
    labels = a_box((12, 12, 8)).numpy()
    case = case_of(torch.from_numpy(labels))
    entry = {"kind": "file", "pattern": f"{tmp_path}/{{case}}.nii.gz", "names": {"organ": 1}}
    far = AFFINE.copy()
    far[:3, 3] = 500
    save_map(tmp_path / "a.nii.gz", labels, far)
    with pytest.raises(InputError, match="have no place in common"):
        masks(case, entry)
    save_map(tmp_path / "a.nii.gz", labels[:6], AFFINE)
    pixels = case_of(torch.from_numpy(labels), grid=Grid.default(labels.shape))
    with pytest.raises(InputError, match="without a physical size it cannot be resampled"):
        masks(pixels, entry)
    with pytest.raises(ConfigError, match="is no pattern"):
        masks(case, {**entry, "pattern": "{scan}.nii.gz"})


def test_a_study_file_says_a_bank() -> None:
    text = """
    - {kind: labels, names: {WT: [1, 2, 4], TC: [1, 4], ET: 4}}
    - {kind: ring, of: WT, within: 10mm}
    - {kind: boundary, of: TC, width: 2mm, name: rim of the core}
    - {kind: band, channel: flair, parts: 3}
    - {kind: hemispheres}
    - {kind: fact, fact: scanner, values: [A, B]}
    """
    bank = ConceptBank.of(yaml.safe_load(text))
    assert bank.names[:5] == ("WT", "TC", "ET", "WT ring 10mm", "rim of the core")
    assert len(bank) == len(bank.masks) + len(bank.images) == 12
    assert all(concept.provenance for concept in bank)
    assert bank["WT"].status == "explicit"
    assert bank["WT ring 10mm"].status == "derived"
    assert bank.only(["ET", "WT"]).names == ("WT", "ET")
    assert {concept.kind for concept in bank.images} == {"image"}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([{"kind": "rign", "of": "WT"}], r"concepts\[0\]: unknown kind .* did you mean ring"),
        ([WT, {"kind": "ring", "of": "WTT", "within": 3}], r"concepts\[1\]: there is no concept"),
        ([WT, {"kind": "ring", "of": "WT", "within": "3cm"}], "'3cm' is not a length"),
        ([WT, {"kind": "ring", "of": "WT", "within": 3, "out": 1}], "unknown parameter"),
        ([WT, WT], r"concepts\[1\]: two concepts have the name 'WT'"),
        ([{"kind": "edge", "width": -1}], "cannot be negative"),
        (
            [
                {"kind": "fact", "fact": "sex", "values": ["M"]},
                {"kind": "ring", "of": "sex = M", "within": 3},
            ],
            "holds for whole images",
        ),
    ],
)
def test_mistakes_are_named_with_their_entry(entries: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ConceptBank.of(entries)


def test_concepts_and_settings_may_be_mixed() -> None:
    own = Concept("own", "mask", "implicit", "drawn by hand", lambda case: case.labels == 1)
    bank = ConceptBank.of([own, BoundaryConcept(of="own", width=1)])
    found = bank["own boundary"].of(case_of(a_box()))
    assert found is not None
    assert found.any()
    with pytest.raises(ConfigError, match="no concept 'owm'; did you mean own"):
        bank["owm"]
    with pytest.raises(ConfigError, match="two concepts have the name"):
        ConceptBank((own, own))


def test_every_kind_can_be_parsed() -> None:
    from voxplain.concepts.bank import AnyConcepts, ConceptSpec

    assert {cls.model_fields["kind"].default for cls in ConceptSpec.__subclasses__()} == {*KINDS}
    assert AnyConcepts is not None
