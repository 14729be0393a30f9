"""Uncertainty of predictions: closed forms, equivariance, ranks, windows, untouched networks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxplain import zoo
from voxplain.concepts.uncertainty import Augmentation, uncertainty
from voxplain.errors import ConfigError, InputError, ModelError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model

every_rank = pytest.mark.parametrize("rank", [2, 3])


class Dropping(nn.Module):
    """A dense network with dropout, in any rank."""

    def __init__(self, rank: int, classes: int = 3, p: float = 0.5) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first = convolution(2, 8, 3, padding=1)
        self.drop = (nn.Dropout2d, nn.Dropout3d)[rank - 2](p)
        self.head = convolution(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.first(image))))


class Constant(nn.Module):
    """The same scores everywhere, whatever the image."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, image: Tensor) -> Tensor:
        rank = image.ndim - 2
        scores = self.scores.view(1, -1, *(1,) * rank).expand(len(image), -1, *image.shape[2:])
        return scores + 0 * image[:, :1]


def an_image(rank: int, side: int = 12, channels: int = 2, seed: int = 0) -> Image:
    torch.manual_seed(seed)
    shape = (side, side - 1, side - 2)[:rank]
    return Image(torch.randn(channels, *shape), Grid.default(shape, (1.0, 1.5, 2.0)[:rank]))


def dropping(rank: int, classes: int = 3) -> Dropping:
    torch.manual_seed(1)
    return Dropping(rank, classes).eval()


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@every_rank
@pytest.mark.parametrize("method", ["dropout", "augmentation", "dropout+augmentation"])
def test_the_parts_are_those_of_the_samples_and_the_network_is_as_before(
    rank: int, method: str
) -> None:
    network = dropping(rank)
    before = state(network)
    found = uncertainty(network, an_image(rank), method, samples=5)
    assert torch.allclose(found.total, found.aleatoric + found.epistemic, atol=1e-6)
    assert float(found.epistemic.mean()) > 1e-4
    p = found.probability
    assert torch.allclose(found.total, -torch.xlogy(p, p).sum(0) * (found.count > 0), atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.drop._forward_hooks
    assert not network.training


@every_rank
def test_epistemic_uncertainty_is_the_mean_divergence_from_the_mean(rank: int) -> None:
    """Of an ensemble all samples are known, so that the sum is written out."""
    networks = [Constant([0.0, 1.0, 2.0]), Constant([2.0, 0.0, 0.0]), Constant([1.0, 1.0, -3.0])]
    found = uncertainty(networks, an_image(rank), "ensemble")
    samples = torch.stack([n.scores.detach().double().softmax(0) for n in networks])
    mean = samples.mean(0)
    divergence = float((samples * (samples / mean).log()).sum(1).mean())
    assert torch.allclose(found.epistemic, torch.full_like(found.epistemic, divergence), atol=1e-6)
    aleatoric = float(-(samples * samples.log()).sum(1).mean())
    assert torch.allclose(found.aleatoric, torch.full_like(found.total, aleatoric), atol=1e-6)
    assert found.record.samples == 3


@every_rank
@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_is_epistemic_where_all_samples_agree(rank: int, classes: int) -> None:
    network = Constant([0.3, 0.1, -0.5][:classes])
    found = uncertainty([network, network], an_image(rank), "ensemble")
    assert float(found.epistemic.max()) < 1e-6
    assert float(found.total.min()) > 0.3
    augmented = uncertainty(network, an_image(rank), samples=4)
    assert float(augmented.epistemic.max()) < 1e-6


@pytest.mark.parametrize("rank", [2, 3])
def test_a_shift_equivariant_network_has_no_variance_away_from_borders(rank: int) -> None:
    torch.manual_seed(0)
    kind = (nn.Conv2d, nn.Conv3d)[rank - 2]
    network = nn.Sequential(kind(2, 4, 3, padding=1), nn.ReLU(), kind(4, 2, 3, padding=1)).double()
    only_shifts = Augmentation(flips=(), rotation=0, shift=2, intensity=0, noise=0)
    image = an_image(rank, side=16)
    found = uncertainty(network, image, only_shifts, samples=6, roi="all")
    inner = (slice(4, -4),) * rank
    assert float(found.epistemic[inner].abs().max()) < 1e-12
    assert float(found.epistemic.max()) > 1e-4  # at the borders there is
    with torch.no_grad():
        clean = network(image.data.double()[None]).softmax(1)[0]
    assert torch.allclose(found.probability[(slice(None), *inner)], clean[(slice(None), *inner)])


@every_rank
def test_a_flip_equivariant_network_has_no_variance_under_flips(rank: int) -> None:
    kind = (nn.Conv2d, nn.Conv3d)[rank - 2]
    network = kind(2, 3, 1)
    flips = Augmentation(flips=tuple(range(rank)), rotation=0, shift=0, intensity=0, noise=0)
    found = uncertainty(network, an_image(rank), flips, samples=5)
    assert float(found.epistemic.max()) < 1e-9
    assert int(found.count.min()) == 5
    torch.manual_seed(0)
    uneven = kind(2, 3, 3, padding=1)
    assert float(uncertainty(uneven, an_image(rank), flips, samples=5).epistemic.max()) > 1e-4


@every_rank
def test_voxels_that_left_the_view_do_not_count(rank: int) -> None:
    shifts = Augmentation(flips=(), rotation=0, shift=3, intensity=0, noise=0)
    found = uncertainty(Constant([0.0, 1.0]), an_image(rank), shifts, samples=8)
    assert int(found.count.max()) == 8
    assert int(found.count.min()) < 8
    (volume,) = found.volumes  # of voxels that left, the unchanged prediction stands
    whole = found.total.numel() * found.image.grid.voxel_volume / (1000 if rank == 3 else 100)
    assert volume.low == volume.high == pytest.approx(whole)
    assert volume.unit == ("mL" if rank == 3 else "cm²")


def test_an_object_that_leaves_the_view_keeps_its_volume() -> None:
    """A column at the border is not there in shifted images; the unchanged prediction counts."""
    image = torch.full((1, 12, 12), -1.0)
    image[:, :, 0] = 1
    shifts = Augmentation(flips=(), rotation=0, shift=3, intensity=0, noise=0)
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, 9)
    found = uncertainty(network, Image(image, Grid.default((12, 12), 1.0)), shifts, samples=8)
    (volume,) = found.volumes
    assert volume.low == volume.high == volume.predicted == pytest.approx(0.12)
    assert int(found.count[:, 0].min()) < 8


def test_rotated_predictions_come_back_where_they_were() -> None:
    """A network that marks a block: without moving back, its corners would be uncertain."""
    image = torch.zeros(1, 40, 40)
    image[:, 12:28, 14:26] = 1
    grid = Grid.default((40, 40), 1.0)

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 20 * (x - 0.5)

    turns = Augmentation(flips=(), rotation=15, shift=0, intensity=0, noise=0)
    found = uncertainty(Bright(), Image(image, grid), turns, samples=6, roi="all")
    edge = nn.functional.max_pool2d(image, 5, 1, 2) + nn.functional.max_pool2d(-image, 5, 1, 2) > 0
    assert float(found.total[~edge[0] & (found.count == 6)].max()) < 0.01
    assert float(found.epistemic[edge[0]].max()) > 0.01
    assert int(found.count[0, 0]) < 6
    assert int(found.count[20, 20]) == 6


def test_a_volume_of_one_slice_is_the_image() -> None:
    flat = an_image(2)
    volume = Image(flat.data[..., None], Grid.default((*flat.grid.shape, 1), (1.0, 1.5, 1.0)))
    network = dropping(2)
    deep = Dropping(3).eval()
    with torch.no_grad():
        deep.first.weight.zero_()
        deep.first.weight[..., 1] = network.first.weight
        deep.first.bias.copy_(network.first.bias)
        deep.head.weight.copy_(network.head.weight[..., None])
        deep.head.bias.copy_(network.head.bias)
    method = ["dropout", Augmentation(flips=(0,))]
    first = uncertainty(network, flat, method, samples=4)
    second = uncertainty(deep, volume, method, samples=4)
    assert torch.allclose(first.total, second.total[..., 0], atol=1e-5)
    assert torch.equal(first.count, second.count[..., 0])


def test_windows_give_what_the_whole_image_gives() -> None:
    network = nn.Conv2d(2, 3, 1)
    image = an_image(2, side=16)
    whole = uncertainty(network, image, samples=4)
    windowed = Model(network, window={"size": [8, 8], "overlap": 0.5})
    found = uncertainty(windowed, image, samples=4)
    assert torch.allclose(whole.total, found.total, atol=1e-5)


def test_a_smaller_output_lies_where_its_cells_lie() -> None:
    """Valid convolutions leave a margin that no sample shows, and moved images less of it."""
    network, image = nn.Conv2d(2, 3, 5), an_image(2)
    still = Augmentation(flips=(), rotation=0, shift=0)
    found = uncertainty(network, image, still, samples=3)
    assert int(found.count[2:-2, 2:-2].min()) == 3
    assert int(found.count.sum()) == 3 * 8 * 7
    assert float(found.total[:2].max()) == 0
    moved = uncertainty(network, image, still.model_copy(update={"shift": 2}), samples=8)
    assert int(moved.count[1].max()) > 0


@pytest.mark.parametrize("heads", [1, 4])
def test_classifiers_have_one_uncertainty_per_image(heads: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Dropout2d(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, heads),
    ).eval()  # fmt: skip
    found = uncertainty(network, an_image(2), "dropout", samples=8)
    assert found.total.shape == ()
    assert float(found.epistemic) > 0
    assert sum(found.record.probabilities or []) == pytest.approx(1)
    assert found.volumes == ()


def test_one_class_against_the_rest_and_classes_that_overlap() -> None:
    network = dropping(2)
    image = an_image(2)
    own = uncertainty(network, image, "dropout", samples=4, label=2)
    p = own.probability[2]
    assert torch.allclose(own.total, -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p))
    assert [volume.label for volume in own.volumes] == [2]
    each = uncertainty(network, image, "dropout", samples=4, activation="sigmoid")
    p = each.probability
    expected = (-torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)).sum(0)
    assert torch.allclose(each.total, expected)
    assert [volume.label for volume in each.volumes] == [0, 1, 2]


def test_the_seed_decides_and_nothing_else() -> None:
    network, image = dropping(2), an_image(2)
    first, again = (uncertainty(network, image, "dropout+augmentation", 3) for _ in range(2))
    assert torch.equal(first.total, again.total)
    other = uncertainty(network, image, "dropout+augmentation", 3, seed=1)
    assert not torch.equal(first.total, other.total)


def test_maps_are_written_with_sidecars_and_numbers(tmp_path: Path) -> None:
    image = an_image(3)
    found = uncertainty(dropping(3), image, samples=3)
    path = found.save(tmp_path, "p 1")
    record = json.loads(path.read_text())
    assert record["files"].keys() == {"total", "aleatoric", "epistemic"}
    read = nib.load(tmp_path / record["files"]["total"])
    assert np.allclose(read.get_fdata(), found.total.numpy(), atol=1e-6)
    sidecar = json.loads(
        (tmp_path / record["files"]["total"].replace(".nii.gz", ".json")).read_text()
    )
    assert sidecar["Units"] == "nats"
    assert sidecar["Parameters"]["rotation"] == 5.0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"method": "dropout"}, ModelError, "no dropout layer"),
        ({"method": "dropuot"}, ConfigError, "dropout"),
        ({"method": "ensemble"}, ConfigError, "at least two networks"),
        ({"samples": 1}, ConfigError, "at least 2 samples"),
        ({"label": 7}, ConfigError, "class 7"),
        ({"method": Augmentation(flips=(5,))}, ConfigError, "axes 0 to 1"),
        ({"method": "dropout+dropout"}, ConfigError, "twice"),
        ({"reference": torch.zeros(3, 3)}, InputError, "does not fit"),
        ({"reference": torch.full((12, 11), 4)}, InputError, r"labels \[4\]"),
        ({"reference": torch.zeros(12, 11), "value": 1}, ConfigError, "say which class"),
        ({"roi": torch.zeros(12, 11)}, InputError, "region of interest"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        uncertainty(nn.Conv2d(2, 3, 1), an_image(2), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_networks_of_an_ensemble_have_the_same_classes() -> None:
    with pytest.raises(ModelError, match="different shapes"):
        uncertainty([nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 1)], an_image(2), "ensemble")
    with pytest.raises(ConfigError, match="add it to the method"):
        uncertainty([nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)], an_image(2))


def test_left_and_right_are_mirrored_where_the_grid_knows_them() -> None:
    from voxplain.engine.context import Context

    turned = np.array([[0.0, 0, 2, 0], [0, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    image = Image(torch.randn(1, 5, 6, 7), Grid((5, 6, 7), turned))
    network = zoo.unet3d(classes=2)
    assert Augmentation().axes(Context.open(network, image)) == (2,)
    unknown = Image(torch.randn(1, 5, 6, 7), Grid.default((5, 6, 7)))
    assert Augmentation().axes(Context.open(network, unknown)) == ()
