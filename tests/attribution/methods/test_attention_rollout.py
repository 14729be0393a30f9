"""Attention rollout against the product of the attention weights that the network stores."""

import pytest
import torch
import torch.nn.functional as F
from networks import assert_close, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.attribution.methods.attention_rollout import rollout
from voxplain.errors import ModelError
from voxplain.models.geometry import layer_geometry, place
from voxplain.models.model import Model

TARGET = {"kind": "class_score", "label": 1}


def _images(rank: int, batch: int = 2, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, *[size] * rank, generator=generator)


def _rolled(weights: list[Tensor]) -> Tensor:
    """The published recipe, one layer at a time; weights (heads, n, n)."""
    joint = None
    for layer in weights:
        mixed = layer.double().mean(0) + torch.eye(layer.shape[-1], dtype=torch.float64)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        joint = mixed if joint is None else mixed @ joint
    assert joint is not None
    return joint


def _map(network: nn.Module, images: Tensor, **parameters) -> Tensor:
    method = {"name": "attention_rollout", **parameters}
    return explain(network, images, method, TARGET)["attention_rollout"].map


class _Scores(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        return output[0] if isinstance(output, tuple) else output


def _vit(rank: int, classes: bool = True, save: bool = False) -> nn.Module:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = monai.ViT(
        1, (16,) * rank, (4,) * rank, hidden_size=12, mlp_dim=16, num_layers=3, num_heads=2,
        classification=classes, post_activation="none", spatial_dims=rank, save_attn=save,
    )  # fmt: skip
    with torch.no_grad():  # untrained attention is almost even
        for block in network.blocks:
            block.attn.qkv.weight *= 5
    return _Scores(network).eval()


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("token", ["class", "mean"])
def test_vit_agrees_with_the_weights_that_it_saves(rank, token):
    network, saving = _vit(rank), _vit(rank, save=True)
    images = _images(rank)
    with untouched(network):
        actual = _map(network, images, token=token)
    for image, values in zip(images, actual, strict=True):
        with torch.no_grad():
            saving(image[None])
        joint = _rolled([block.attn.att_mat[0] for block in saving.network.blocks])
        row = joint[0, 1:] if token == "class" else joint[1:, 1:].mean(0)
        cells = row.reshape(1, *[4] * rank)
        assert_close(values, _placed(network, image[None], cells).float(), 1e-5)
    spread = actual.flatten(1)
    assert bool((spread.amax(1) > 1.05 * spread.amin(1)).all()), "the map is flat"


def _placed(network: nn.Module, image: Tensor, cells: Tensor) -> Tensor:
    """Patch i begins at voxel 4 i, so its center lies at 4 i + 1.5."""
    path = "network.patch_embedding"
    geometry = layer_geometry(network, image, [path])[path]
    assert geometry.start == (1.5,) * (image.dim() - 2)
    return place(cells, geometry, image.shape[2:])


def test_the_class_of_the_target_plays_no_part():
    network, images = _vit(2), _images(2)
    zero = explain(network, images, "attention_rollout", 0)["attention_rollout"].map
    assert torch.equal(zero, _map(network, images))


def test_the_sidecar_says_that_no_class_is_meant():
    (actual,) = explain(_vit(2), _images(2, 1), "attention_rollout", TARGET).values()
    sidecar = actual[0].sidecar
    assert sidecar.meaning.endswith("not specific to a class.")
    assert 15 < len(sidecar.meaning) < 140
    assert sidecar.sign == "positive"
    assert sidecar.completeness is None
    assert float(actual.map.min()) >= 0


def test_auto_is_the_class_token_where_there_is_one():
    network, images = _vit(2), _images(2)
    assert torch.equal(_map(network, images), _map(network, images, token="class"))
    assert not torch.allclose(_map(network, images), _map(network, images, token="mean"))


@pytest.mark.parametrize("rank", [2, 3])
def test_unetr_shows_what_its_patches_draw_on(rank):
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    sizes = {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2}
    network = monai.UNETR(1, 2, (32,) * rank, **sizes, spatial_dims=rank).eval()
    images = _images(rank, 1, 32)
    actual = _map(network, images)
    assert torch.equal(actual, _map(network, images, token="mean"))
    # linear interpolation between cells and beyond keeps the mean over the cells
    assert float(actual.mean()) == pytest.approx(1 / 2**rank, rel=1e-5)
    with pytest.raises(ModelError, match=r"no class token.*token: mean"):
        _map(network, images, token="class")


def test_windows_are_blended():
    """The windows of a repeated image are equal, and their blend is one of them, repeated."""
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    sizes = {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2}
    network = monai.UNETR(1, 2, (32, 32), **sizes, spatial_dims=2).eval()
    part = _images(2, 1, 32)
    volume = part.repeat(1, 1, 2, 1)
    model = Model(network, window={"size": 32, "overlap": 0})
    actual = explain(model, volume, "attention_rollout", TARGET)["attention_rollout"].map
    assert_close(actual, _map(network, part).repeat(1, 1, 2, 1), 1e-5)


class _Written(nn.Module):
    """Two layers of self-attention over 4 x 4 patches, in any of torch's spellings."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spelling = spelling
        self.patches = nn.Conv2d(1, 8, 4, 4)
        first = spelling != "tokens first"
        self.layers = nn.ModuleList(
            nn.MultiheadAttention(8, 2, batch_first=first, dropout=0.5) for _ in range(2)
        )
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            for layer in self.layers:
                layer.in_proj_weight *= 4

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = tokens + self._attended(layer, tokens)
        return self.head(tokens.mean(1))

    def _attended(self, layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
        if self.spelling == "tokens first":
            x = x.transpose(0, 1)
            return layer(x, x, x)[0].transpose(0, 1)
        if self.spelling == "module":
            return layer(x, x, x)[0]
        if self.spelling == "without weights":
            return layer(x, x, x, need_weights=False)[0]
        return layer.out_proj(self._by_hand(layer, x))

    def _by_hand(self, layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
        parts = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).unflatten(-1, (3, 2, 4))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if self.spelling == "fused":
            heads = F.scaled_dot_product_attention(q, k, v)
        elif self.spelling == "matmul":
            heads = ((q / 2) @ k.transpose(-2, -1)).softmax(-1).to(v.dtype) @ v
        else:
            weights = torch.einsum("bhxd,bhyd->bhxy", q, k).mul(0.5).softmax(dim=3)
            heads = torch.einsum("bhxy,bhyd->bhxd", F.dropout(weights, 0.3, self.training), v)
        return heads.transpose(1, 2).flatten(2)


SPELLINGS = ("module", "tokens first", "without weights", "fused", "matmul", "einsum")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_attention_give_one_map(spelling):
    images = _images(2)
    network = _Written("module").eval()
    actual = _map(_Written(spelling).eval(), images)
    tokens = network.patches(images).flatten(2).transpose(1, 2)
    seen = []
    for layer in network.layers:
        attended, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
        seen.append(weights.detach())
        tokens = tokens + attended
    for row, (first, second) in enumerate(zip(*seen, strict=True)):
        cells = _rolled([first, second]).mean(0).reshape(1, 4, 4)
        geometry = layer_geometry(network, images[:1], ["patches"])["patches"]
        assert_close(actual[row], place(cells, geometry, (16, 16)).float(), 1e-5)


def test_a_flat_attention_is_flat_and_sharp_attention_moves_the_view():
    even = torch.full((2, 4, 4), 0.25)
    assert torch.allclose(rollout([even] * 9).mean(0), torch.full((4,), 0.25, dtype=torch.float64))
    to_third = torch.zeros(1, 4, 4)
    to_third[..., 2] = 1
    view = rollout([to_third] * 3)
    assert view[0].tolist() == pytest.approx([0.125, 0, 0.875, 0])


@pytest.mark.parametrize("rank", [2, 3])
def test_networks_without_attention_are_refused_in_words(rank):
    kind = (nn.Conv2d, nn.Conv3d)[rank - 2]
    network = nn.Sequential(kind(1, 2, 3, padding=1), nn.Softmax(1))
    with pytest.raises(ModelError, match=r"no attention between tokens.*transformers"):
        _map(network, _images(rank))


def test_shifted_windows_are_refused_in_words():
    monai = pytest.importorskip("monai.networks.nets")
    ones = (1, 1, 1, 1)
    network = monai.SwinUNETR(
        1, 2, feature_size=12, depths=ones, num_heads=ones, spatial_dims=2, window_size=4
    ).eval()
    with pytest.raises(ModelError, match=r"stays within \d+ windows of \d+ tokens.*ViT and UNETR"):
        _map(network, _images(2, 1, 64))


class _Crossing(_Written):
    def _by_hand(self, layer, x):
        q = x[:, None]
        return F.scaled_dot_product_attention(q, q[..., ::2, :], q[..., ::2, :])[:, 0]


def test_attention_to_other_tokens_is_refused_in_words():
    with pytest.raises(ModelError, match=r"from 16 tokens at 8 others|8 tokens of the attention"):
        _map(_Crossing("crossing").eval(), _images(2))
