"""Errors with a planted cause: found, removed, scored on others; and one that all units carry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from voxplain.concepts.concept import Concept
from voxplain.concepts.errors import ErrorSettings, explain_errors
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError, InputError, ModelError, TargetError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.records.error_causes import ErrorCausesRecord

every_rank = pytest.mark.parametrize("rank", [2, 3])
SIDES = (26, 24, 7)
FAST = ErrorSettings(kinds=("fp",), draws=49)


class Planted(nn.Module):
    """Unit 0 of layer ``first`` fires on lesions, unit 5 on markers; both make the class."""

    def __init__(self, rank: int, units: int = 6) -> None:
        super().__init__()
        kind = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first, self.head = kind(2, units, 1), kind(units, 2, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            self.first.bias.fill_(-0.5)
            self.first.weight[0, 0] = self.first.weight[5, 1] = 1
            self.first.weight[1:5, 0] = 0.1
            self.head.weight[1, 0] = self.head.weight[1, 5] = 20
            self.head.bias[1] = -2

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(image)))


class Spread(Planted):
    """Every unit fires on lesions and on markers alike."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, units=8)
        with torch.no_grad():
            self.first.weight.fill_(1)
            self.head.weight[1] = 4


def case(
    name: str, rank: int, *, marker: bool = True, true_marker: bool = False, lesion: float = 2
) -> CohortCase:
    """A lesion in one channel, and a marker in the other that is no lesion."""
    source = torch.Generator().manual_seed(sum(map(ord, name)))
    shape = SIDES[:rank]
    data = 0.05 * torch.randn(2, *shape, generator=source)
    deep = (slice(2, 5),) * (rank - 2)
    at = int(torch.randint(3, 10, (), generator=source))
    lesion_box = (slice(at, at + 5), slice(4, 9), *deep)
    marker_box = (slice(17, 20), slice(14, 17), *deep)
    labels = torch.zeros(shape, dtype=torch.long)
    data[(0, *lesion_box)] += lesion
    labels[lesion_box] = 3
    if marker:
        data[(1, *marker_box)] += 2
    if true_marker:
        labels[marker_box] = 3
    image = Image(data, Grid.default(shape, (1.0, 1.5, 2.0)[:rank]), ("flair", "t1"))
    return CohortCase(name, name.split("-")[0], image, labels)


def marker_of(one: CohortCase) -> Tensor:
    return one.image.data[1] > 1


MARKER = Concept("marker", "mask", "explicit", "planted", marker_of)


def cohort(rank: int, count: int = 8) -> Cohort:
    return Cohort.of([case(f"p{n}-a", rank, marker=n % 2 == 0) for n in range(count)])


@every_rank
def test_the_planted_unit_is_the_cause_and_its_ablation_removes_the_error(rank: int) -> None:
    network = Planted(rank).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = FAST.model_copy(update={"draws": 99, "most": 2})
    found = explain_errors(network, cohort(rank), 1, (MARKER,), ("first",), settings=settings)
    for error in found.record.errors:
        assert error.units_alone
        assert {*error.alone} == {"unit 5 of first", "modality t1", "marker"}
        by_name = {row.cause: row for row in error.effects}
        assert by_name["unit 5 of first"].removed == 1
        assert by_name["unit 5 of first"].removed_volume == pytest.approx(error.volume)
        assert by_name["unit 5 of first"].q <= 0.05  # type: ignore[operator]
        assert by_name["unit 0 of first"].removed == 0
        assert by_name["modality flair"].removed == 0
        assert error.unit == ("mL" if rank == 3 else "cm²")
        voxel = 1.0 * 1.5 * (2.0 if rank == 3 else 1) / (1000 if rank == 3 else 100)
        assert error.volume == pytest.approx(9 * (3 if rank == 3 else 1) * voxel)
        assert error.score > 10
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.first._forward_hooks


@every_rank
def test_a_correction_is_chosen_on_one_half_and_scored_on_the_other(rank: int) -> None:
    found = explain_errors(Planted(rank).eval(), cohort(rank), 1, (), ("first",), settings=FAST)
    (chosen,) = (row for row in found.record.corrections if row.chosen)
    assert (chosen.name, chosen.factor) in {("unit 5 of first", 0.0), ("modality t1", 0.0)}
    assert chosen.own.removed == 1
    assert chosen.held_out is not None
    assert {*found.record.selection_patients}.isdisjoint(found.record.held_out_patients)
    assert chosen.held_out.dice_change.mean > 0  # type: ignore[operator]
    assert chosen.held_out.fp_after == 0 < chosen.held_out.fp_before
    assert chosen.held_out.worse_cases == 0
    harmful = [row for row in found.record.corrections if row.name == "unit 0 of first"]
    assert not harmful  # it removes nothing of the error


def test_an_error_that_all_units_carry_has_no_single_cause_and_this_is_said() -> None:
    found = explain_errors(Spread(2).eval(), cohort(2), 1, (), ("first",), settings=FAST)
    for error in found.record.errors:
        assert not error.units_alone
        assert "no unit alone causes it" in error.sentence
        (several,) = error.together
        assert several.count is not None
        assert several.count > 2
        assert several.removed >= 0.5
    assert "and 0 when a single unit is" in found.sentences[0]


def test_an_overfitted_correction_is_seen_to_fail_on_held_out_patients() -> None:
    """On one half markers are artifacts, on the other half they are lesions."""
    names = [f"p{n}-a" for n in range(20)]
    selection, _ = Cohort({name: name[:-2] for name in names}, lambda _: None).split(0.5, 0)  # type: ignore[arg-type,return-value]
    cases = [case(name, 2, true_marker=name not in selection.ids) for name in names]
    found = explain_errors(Planted(2).eval(), Cohort.of(cases), 1, (), ("first",), settings=FAST)
    (chosen,) = (row for row in found.record.corrections if row.chosen)
    assert chosen.held_out is not None
    assert chosen.selection.dice_change.mean > 0.05 > -0.05 > chosen.held_out.dice_change.mean  # type: ignore[operator]
    assert chosen.verdict == "harms"
    assert "it harms" in found.sentences[-1]


def test_errors_of_the_same_cause_are_grouped() -> None:
    """Markers make false positives; lesions that are too dark are missed."""
    cases = [
        case("p0-a", 2), case("p1-a", 2), case("p2-a", 2, marker=False, lesion=0.55),
        case("p3-a", 2, marker=False, lesion=0.55),
    ]  # fmt: skip
    settings = ErrorSettings(draws=9, corrections=0)
    found = explain_errors(
        Planted(2).eval(), Cohort.of(cases), 1, (), ("first",), settings=settings
    )
    groups = {frozenset(group.members): group for group in found.record.groups}
    same = groups[frozenset({"p0-a/fp1", "p1-a/fp1"})]
    assert same.similarity is not None
    assert same.similarity > 0.95
    assert "unit 5 of first" in same.causes
    missed = [error for error in found.record.errors if error.error == "fn"]
    assert missed
    assert not any(error.units_alone for error in missed)
    assert all(error.score > 0 for error in missed)  # toward the error


@pytest.mark.parametrize("replacement", ["mean", "resample"])
@pytest.mark.parametrize("fill", ["surround", "blur", "case"])
def test_other_cases_and_blurs_replace_too(replacement: str, fill: str) -> None:
    if fill == "case" and replacement == "mean":
        with pytest.raises(ConfigError, match="choose replacement: resample"):
            explain_errors(
                Planted(2), cohort(2), 1, (MARKER,),
                settings=ErrorSettings(fill="case", kinds=("fp",)),
            )  # fmt: skip
        return
    cases = [case("p0-a", 2), case("p1-a", 2, marker=False)]
    settings = ErrorSettings(
        kinds=("fp",), draws=19, corrections=0, replacement=replacement, fill=fill
    )  # type: ignore[arg-type]
    found = explain_errors(
        Planted(2).eval(), Cohort.of(cases), 1, (MARKER,), ("first",), settings=settings
    )
    (error,) = found.record.errors
    removed = {row.cause: row.removed for row in error.effects}
    assert removed["unit 5 of first"] == removed["modality t1"] == 1
    assert removed["marker"] > (0.5 if fill == "blur" else 0.99)


def test_sets_of_units_are_held_against_random_sets() -> None:
    sets = {"marker detectors": ("first", (4, 5)), "lesion detectors": ("first", (0, 1))}
    found = explain_errors(Planted(2).eval(), cohort(2, 4), 1, (), ("first",), sets, settings=FAST)
    by_name = {row.cause: row for row in found.record.errors[0].effects}
    detectors = by_name["marker detectors"]
    assert (detectors.null, detectors.removed) == ("sets", 1)
    assert detectors.draws == 14  # 6 choose 2, without itself
    assert detectors.p == pytest.approx(5 / 15)  # every pair with unit 5 removes as much
    assert by_name["lesion detectors"].p == 1


def test_windows_give_the_causes_of_the_whole_image() -> None:
    windowed = Model(Planted(2).eval(), window={"size": [13, 12], "overlap": 0.5})
    cases = cohort(2, 4)
    first = explain_errors(Planted(2).eval(), cases, 1, (), ("first",), settings=FAST)
    second = explain_errors(windowed, cases, 1, (), ("first",), settings=FAST)
    for one, other in zip(first.record.errors, second.record.errors, strict=True):
        drops = {row.cause: row.drop for row in one.effects}
        assert drops == pytest.approx({row.cause: row.drop for row in other.effects}, abs=1e-3)


def test_a_volume_of_one_slice_has_the_causes_of_the_image() -> None:
    def deep(one: CohortCase) -> CohortCase:
        shape = (*one.image.grid.shape, 1)
        grid = Grid.default(shape, (1.0, 1.5, 1.0))
        image = Image(one.image.data[..., None], grid, one.image.channels)
        return CohortCase(one.id, one.patient, image, one.labels[..., None])  # type: ignore[index]

    flat = cohort(2, 4)
    volumes = Cohort.of([deep(each) for each in flat])
    first = explain_errors(Planted(2).eval(), flat, 1, (MARKER,), ("first",), settings=FAST)
    second = explain_errors(Planted(3).eval(), volumes, 1, (MARKER,), ("first",), settings=FAST)
    for one, other in zip(first.record.errors, second.record.errors, strict=True):
        assert [(row.cause, row.removed, row.p) for row in one.effects] == [
            (row.cause, row.removed, row.p) for row in other.effects
        ]


def test_what_is_found_is_written_and_read_again(tmp_path: Path) -> None:
    found = explain_errors(Planted(2).eval(), cohort(2, 4), 1, settings=FAST)
    read = ErrorCausesRecord.model_validate_json(found.save(tmp_path / "new").read_text())
    assert read == found.record
    again = explain_errors(Planted(2).eval(), cohort(2, 4), 1, settings=FAST)
    assert again.record == found.record


def test_one_patient_leaves_no_held_out_half() -> None:
    cases = Cohort.of([case(f"p0-{letter}", 2) for letter in "ab"])
    found = explain_errors(Planted(2).eval(), cases, 1, (), ("first",), settings=FAST)
    assert found.record.held_out_patients == []
    assert all(row.held_out is None for row in found.record.corrections)
    assert "no held-out patients" in found.sentences[-1]


def test_without_errors_there_is_nothing_to_explain() -> None:
    cases = Cohort.of([case(f"p{n}-a", 2, marker=False) for n in range(3)])
    found = explain_errors(Planted(2).eval(), cases, 1, (), ("first",), settings=FAST)
    assert found.record.errors == []
    assert found.sentences == ("No errors of class 1 were found.",)


WHOLE = Concept("scanner", "image", "explicit", "facts", lambda _: torch.tensor(True))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"label": 7}, TargetError, "class 7"),
        ({"layers": ("frist",)}, ModelError, "first"),
        ({"concepts": (WHOLE,)}, ConfigError, "whole image"),
        ({"unit_sets": {"none": ("first", (9,))}}, ConfigError, "units 0 to 5"),
        ({"cohort": Cohort.of([])}, InputError, "no case"),
        ({"cohort": Cohort.of([CohortCase("x", "x", case("p0-a", 2).image)])}, InputError, "'x'"),
        ({"model": nn.Sequential(nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
          "layers": ("0",)}, TargetError, "dense output"),
        ({"cohort": Cohort.of([case("p0-a", 2)]),
          "settings": ErrorSettings(replacement="resample")}, ConfigError, "no other patient"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_sentence(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    given = {"model": Planted(2).eval(), "cohort": cohort(2, 2), "label": 1, "layers": ("first",)}
    with pytest.raises(error, match=words) as caught:
        explain_errors(**(given | arguments))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
