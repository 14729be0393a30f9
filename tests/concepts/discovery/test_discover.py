"""Components of layers, against parts and groups that were planted."""

from __future__ import annotations

import pytest
import torch
from planted import Pointwise, backwards, label_concept, noise_cohort, one_slice

from voxplain.concepts.discovery.discover import Discovery, DiscoveryMethod, discover
from voxplain.concepts.stability import matched_cosines
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError, InputError
from voxplain.grid import Grid
from voxplain.image import Image

PARTS = torch.tensor(
    [[1.0, 2, 0, 0, 0, 0, 0.5, 0], [0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 2, 1, 0, 0.3]]
)


def mixed(count: int = 6, noise: float = 0.02, shape: tuple[int, ...] = (12, 12)) -> Cohort:
    """Cases whose channels are sums of the parts, each present at a third of the voxels."""
    cases = []
    for number in range(count):
        source = torch.Generator().manual_seed(number)
        shares = torch.rand(3, *shape, generator=source)
        shares *= torch.rand(3, *shape, generator=source) < 0.35
        data = torch.einsum("pk,p...->k...", PARTS, shares)
        data += noise * torch.rand(data.shape, generator=source)
        image = Image(data, Grid.default(shape))
        labels = (shares[1] > 0.3).long()
        cases.append(CohortCase(f"case{number}", f"patient{number}", image, labels))
    return Cohort.of(cases)


def found(
    cases: Cohort, method: DiscoveryMethod = "nmf", rank: int = 2, **options: object
) -> Discovery:
    network = Pointwise(torch.ones(1, 8), rank)
    settings = {"counts": (2, 3, 4), "repeats": 4, "per_case": 100, **options}
    return discover(network, cases, "layer", method, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parts() -> Discovery:
    return found(mixed())


def test_planted_parts_and_their_number_are_found(parts: Discovery) -> None:
    assert parts.record.chosen.count == 3
    assert float(matched_cosines(PARTS, parts.directions.vectors).min()) > 0.99
    assert parts.record.chosen.explained > 0.99
    assert parts.record.chosen.silhouette > 0.99
    assert {each.channels for each in parts.record.components} >= {(1, 0), (4, 5)}


def test_how_much_of_a_part_there_is_is_read_off(parts: Discovery) -> None:
    activation = PARTS.T @ torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]).T
    code = parts.directions.encode(activation)
    decoded = parts.directions.decode(code)
    assert torch.allclose(decoded, activation, atol=0.15)
    assert float((code > 0.2).sum()) == 3


def test_units_that_go_together_are_a_group() -> None:
    groups = found(mixed(), "profiles", concepts=[label_concept()])
    assert {*(each.channels for each in groups.record.components)} == {(0, 1, 6), (2, 3, 7), (4, 5)}
    assert groups.units(0).channels == groups.record.components[0].channels


@pytest.mark.parametrize("method", ["nmf", "profiles"])
def test_neither_order_nor_rank_changes_anything(method: DiscoveryMethod) -> None:
    first = found(mixed(), method)
    second = found(backwards(one_slice(mixed())), method, rank=3)
    assert first.record.chosen.count == second.record.chosen.count
    assert torch.allclose(first.directions.vectors, second.directions.vectors, atol=1e-5)
    assert [each.top_cases for each in first.record.components] == [
        each.top_cases for each in second.record.components
    ]


def test_noise_has_no_stable_parts() -> None:
    noise = mixed(noise=50.0)
    with pytest.raises(InputError, match="no number of components is found again"):
        found(noise, counts=(4,), repeats=3)


def test_few_patients_are_said_to_be_few() -> None:
    assert "2 patients are too few" in found(mixed(2)).record.remarks[0]


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="has negative activations"):
        found(noise_cohort(4, 8, labels=lambda data: data[0].long()))
    with pytest.raises(ConfigError, match="start at 2"):
        found(mixed(), counts=(1, 2))
    dark = [CohortCase("a", "a", Image(torch.zeros(8, 4, 4), Grid.default((4, 4))))]
    with pytest.raises(InputError, match="0 everywhere"):
        found(Cohort.of(dark))
    with pytest.raises(InputError, match="0 units that vary"):
        found(Cohort.of(dark), "profiles")
