"""Sensitivities to concepts, against linear networks, autograd, captum and random concepts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import Pointwise, Strided, bright_along, label_concept, noise_cohort, one_slice
from torch import Tensor, nn

from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.sensitivity import Sensitivities, concept_sensitivity
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError, InputError, ModelError, TargetError
from voxplain.models.model import Model

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])
HEAD = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.3, -2.0, 1.0, 0.0]])
SCORE = {"kind": "class_score", "label": 0}


def cohort(count: int = 8, shape: tuple[int, ...] = (12, 12)) -> Cohort:
    return noise_cohort(count, 4, shape, bright_along(WEIGHTS))


def measured(network: nn.Module | Model, cases: Cohort, layer: str = "layer") -> Sensitivities:
    return concept_sensitivity(
        network, cases, [label_concept()], [layer], SCORE, random_directions=39
    )


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_the_derivative_of_a_linear_network_is_exact(rank: int, dense: bool) -> None:
    network = Pointwise(HEAD, rank, dense)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = measured(network, cohort(shape=(8, 8, 5)[:rank]))
    row, vector = found.of("planted", "layer"), found.directions["layer"].vectors[0]
    voxels = math.prod((8, 8, 5)[:rank]) if dense else 1
    assert math.isclose(row.mean, voxels * float(vector @ HEAD[0]), rel_tol=1e-4, abs_tol=1e-4)
    assert row.share_positive == float(vector @ HEAD[0] > 0)
    assert float(vector @ WEIGHTS / WEIGHTS.norm()) > 0.97
    assert row.accuracy > 0.85
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_concept_that_a_linear_score_is_about_is_significant() -> None:
    row = measured(Pointwise(WEIGHTS[None].expand(2, 4)), cohort()).of("planted", "layer")
    assert row.p_mean <= 0.05
    assert row.mean > max(row.random_mean)
    assert row.p_share > 0.05  # of a linear score any direction has a share of 0 or 1


def test_the_derivative_of_a_deep_network_is_the_one_of_autograd() -> None:
    torch.manual_seed(0)
    network, cases = Strided(channels=4).eval(), cohort()
    found = measured(network, cases, "first")
    vector = found.directions["first"].vectors[0]
    derivatives = []
    for case in sorted(found.record.held_out):
        step = torch.zeros((), requires_grad=True)
        first = network.first(cases[case].image.data[None]) + step * vector.view(1, -1, 1, 1)
        deep = torch.relu(network.second(torch.relu(first)))
        score = network.head(deep.flatten(2).mean(dim=2))[0, 0]
        derivatives.append(float(torch.autograd.grad(score, step)[0]))
    row = found.of("planted", "first")
    assert math.isclose(row.mean, sum(derivatives) / len(derivatives), rel_tol=1e-3, abs_tol=1e-6)
    assert row.share_positive == sum(each > 0 for each in derivatives) / len(derivatives)


def test_a_volume_of_one_slice_is_the_image() -> None:
    flat = measured(Pointwise(HEAD), cohort()).of("planted", "layer")
    deep = measured(Pointwise(HEAD, 3), one_slice(cohort())).of("planted", "layer")
    for name, value in dict(flat).items():
        assert getattr(deep, name) == pytest.approx(value, abs=1e-5), name


def test_windows_move_together() -> None:
    network, cases = Pointwise(HEAD, dense=True), cohort()
    whole = measured(network, cases).of("planted", "layer")
    model = Model(network, window={"size": [8, 8], "overlap": 0.5})
    found = measured(model, cases)
    row, vector = found.of("planted", "layer"), found.directions["layer"].vectors[0]
    assert math.isclose(row.mean, 144 * float(vector @ HEAD[0]), rel_tol=1e-4)
    assert row.share_positive == whole.share_positive


@pytest.mark.slow
def test_random_concepts_are_significant_as_often_as_the_level_says() -> None:
    torch.manual_seed(0)
    network, base = Strided(channels=4).eval(), cohort(6, (16, 16))
    p_values = []
    for seed in range(120):
        source = torch.Generator().manual_seed(seed)
        masks = {case: _blob(source) for case in base.ids}
        concept = Concept("blob", "mask", "explicit", "made", lambda case, m=masks: m[case.id])
        found = concept_sensitivity(
            network, base, [concept], ["first"], SCORE, random_directions=39, seed=seed
        )
        p_values.append(found.record.rows[0].p_mean)
    rejected = sum(p <= 0.05 for p in p_values) / len(p_values)
    assert rejected <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(p_values))


def _blob(source: torch.Generator) -> Tensor:
    row, column = torch.randint(0, 12, (2,), generator=source).tolist()
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[row : row + 4, column : column + 4] = True
    return mask


def image_level(cases: Cohort) -> Cohort:
    """Every other case has the concept, in which the first channel is brighter."""
    changed = []
    for number, case in enumerate(cases):
        data = case.image.data.clone()
        data[0] += number % 2
        image = replace(case.image, data=data)
        changed.append(CohortCase(case.id, case.patient, image, facts={"has": number % 2}))
    return Cohort.of(changed)


HAS = Concept(
    "has", "image", "explicit", "facts", lambda case: torch.tensor(bool(case.facts["has"]))
)


def test_a_concept_of_whole_images_is_found_in_their_means() -> None:
    found = concept_sensitivity(
        Pointwise(HEAD), image_level(cohort(16)), [HAS], ["layer", "head"], SCORE,
        random_directions=39, ridge=0.1,
    )  # fmt: skip
    vector = found.directions["layer"].vectors[0]
    assert int(vector.abs().argmax()) == 0
    assert found.of("has", "layer").accuracy == 1.0
    assert {row.layer for row in found.record.rows} == {"layer", "head"}


def test_it_is_the_share_of_captum(tmp_path: Path) -> None:
    concepts = pytest.importorskip("captum.concept")
    torch.manual_seed(0)
    network, cases = Strided(channels=4).eval(), image_level(cohort(16))
    found = concept_sensitivity(network, cases, [HAS], ["first"], SCORE, random_directions=39)
    vector = found.directions["first"].vectors[0]

    class Given(concepts.Classifier):  # type: ignore[misc, name-defined]
        """The direction that was found, at every cell."""

        def __init__(self) -> None:
            self.flat = torch.empty(0)

        def train_and_eval(self, dataloader, **_):  # type: ignore[no-untyped-def]
            cells = next(iter(dataloader))[0].shape[1] // len(vector)
            self.flat = vector.repeat_interleave(cells)
            return {"accs": torch.tensor(1.0)}

        def weights(self) -> Tensor:
            return torch.stack([self.flat, -self.flat])

        def classes(self) -> list[int]:
            return [0, 1]

    def loader(has: bool) -> list[Tensor]:
        return [case.image.data[None] for case in cases if bool(case.facts["has"]) == has]

    pair = [
        concepts.Concept(number, name, loader(has))
        for number, (name, has) in enumerate((("has", True), ("rest", False)))
    ]
    tcav = concepts.TCAV(network, ["first"], classifier=Given(), save_path=str(tmp_path))
    inputs = torch.stack([cases[case].image.data for case in found.record.held_out])
    scores = tcav.interpret(inputs, [pair], target=0)["0-1"]["first"]["sign_count"]
    assert float(scores[0]) == pytest.approx(found.of("has", "first").share_positive)


def test_a_concept_that_is_absent_has_a_reason_and_nothing_is_lost() -> None:
    absent = replace(label_concept(value=7), name="absent")
    found = concept_sensitivity(
        Pointwise(HEAD), cohort(), [label_concept(), absent], ["layer"], SCORE,
        random_directions=39,
    )  # fmt: skip
    row = found.of("absent", "layer")
    assert "nowhere" in row.reason
    assert math.isnan(row.share_positive)
    assert math.isnan(row.q_mean)
    assert found.of("planted", "layer").q_mean == found.of("planted", "layer").p_mean
    assert found.directions["layer"].names == ("planted",)


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="has 1; it takes two at least"):
        measured(Pointwise(HEAD), cohort(1))
    with pytest.raises(ConfigError, match="take 39 at least"):
        concept_sensitivity(
            Pointwise(HEAD), cohort(), [label_concept()], ["layer"], SCORE, random_directions=10
        )
    with pytest.raises(TargetError, match="no held-out case has a score"):
        concept_sensitivity(
            Pointwise(HEAD), cohort(), [label_concept()], ["layer"], {"kind": "label", "label": 9},
            random_directions=39,
        )  # fmt: skip
    closed = Pointwise(HEAD)
    closed.differentiable = False
    with pytest.raises(ModelError, match="forward-only black box"):
        measured(closed, cohort())
