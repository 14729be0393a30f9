"""Stages are found where weights are used, in the order in which they run."""

from __future__ import annotations

import warnings

import pytest
import torch
from networks import classifier, images, untouched
from torch import Tensor, nn

from voxplain.engine.randomization import grouped, stages
from voxplain.errors import ModelError
from voxplain.models.model import Model


def _stages(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    with untouched(network):
        return stages(Model(network), example)


class Backwards(nn.Module):
    """Registered from the output to the input; one layer never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.spare = nn.Linear(4, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        features = self.pool(self.act(self.norm(self.conv(image))))
        return self.head(features.flatten(1))


def test_order_is_that_of_running_and_not_of_registration() -> None:
    assert _stages(Backwards().eval(), images()) == ("conv", "norm", "head")


@pytest.mark.parametrize("rank", [2, 3])
def test_layers_without_parameters_are_no_stage(rank: int) -> None:
    assert _stages(classifier(rank, halve=True), images(rank)) == ("conv1", "conv2", "head")


class Shared(nn.Module):
    """One convolution runs twice, and the head shares the weight of a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 3, padding=1)
        self.between = nn.Conv2d(1, 1, 1)
        self.early = nn.Linear(36, 36, bias=False)
        self.head = nn.Linear(36, 36, bias=False)
        self.head.weight = self.early.weight

    def forward(self, image: Tensor) -> Tensor:
        image = self.early(image.flatten(1)).view_as(image)
        return self.head(self.twice(self.between(self.twice(image))).flatten(1))


def test_shared_weights_count_once_at_their_last_use() -> None:
    assert _stages(Shared().eval(), images()) == ("between", "twice", "head")


class Tokens(nn.Module):
    """A class token of the network itself, positions, and attention that calls no projection."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.embed = nn.Linear(1, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.embed(image.flatten(2).transpose(1, 2).to(self.head.weight.dtype))
        tokens = torch.cat([self.token.expand(len(image), 1, 4), tokens], dim=1)
        return self.head(self.attention(tokens, tokens, tokens)[0][:, 0])


def test_tokens_count_where_they_join_and_projections_though_they_are_never_called() -> None:
    paths = _stages(Tokens().eval(), images())
    assert paths[:2] == ("embed", "")  # the network itself holds the token
    assert set(paths[2:4]) == {"attention", "attention.out_proj"}
    assert paths[4:] == ("head",)


class Asking(nn.Module):
    """Looks at its first weight once more at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        output = self.last(self.first(image))
        count = self.first.weight.size(0) + len(self.first.weight.size())
        like = self.first.weight
        assert like.dim() + like.data.ndim + count
        return output.to(like.dtype).to(like.device).view(-1, *like.shape[:1], 16)


def test_asking_a_weight_for_its_shape_is_no_use_of_it() -> None:
    assert _stages(Asking().eval(), images()) == ("first", "last")


class Held(nn.Module):
    """Weights without a module of their own, used in a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.scale = nn.Parameter(torch.ones(2, 1, 1))
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.first(image) * self.scale)


def test_a_scale_of_a_block_runs_between_its_layers() -> None:
    network = nn.Sequential(Held(), nn.Conv2d(2, 2, 1)).eval()
    assert _stages(network, images()) == ("0.first", "0", "0.last", "1")


def test_a_network_without_weights_has_nothing_to_randomize() -> None:
    with pytest.raises(ModelError, match="nothing can be randomized"):
        stages(Model(nn.Sequential(nn.ReLU())), images())


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("ResNet10", "network.conv1", "network.fc"),
        ("DenseNet121", "network.features.conv0", "network.class_layers.out"),
        ("ViT", "network.patch_embedding.patch_embeddings", "network.classification_head"),
    ],
)
def test_every_weight_of_real_networks_belongs_to_a_stage(name: str, first: str, last: str) -> None:
    import matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, example = matrix.network(name, 2), matrix.image(name, 2)
    paths = _stages(network, example)
    assert (paths[0], paths[-1]) in [(first, last), (first, last + ".0")]
    held = {path for path, part in network.named_modules() if list(part.parameters(recurse=False))}
    left = {path for path in held if path not in paths}
    assert all(path.endswith("norm_cross_attn") for path in left), left  # which never run
    if name == "ViT":
        assert paths.index("network") < 4  # its class token joins behind the embedding


def test_neighbors_are_joined_evenly_and_none_is_lost() -> None:
    paths = tuple("abcdefghij")
    assert grouped(paths, 20) == tuple((path,) for path in paths)
    groups = grouped(paths, 4)
    assert tuple(path for group in groups for path in group) == paths
    assert {len(group) for group in groups} <= {2, 3}
