"""Layers in execution order, by name, and the default layer of CAMs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxplain.errors import ModelError
from voxplain.models.layers import (
    convolution_stages,
    find_layer,
    last_feature_layer,
    list_layers,
)
from voxplain.models.loading import ModelSpec, load_network

DATA = Path(__file__).parents[2] / "../shared/data"
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Backwards(nn.Module):
    """Runs its layers in the opposite order of their declaration, one of them twice."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.block = nn.Sequential(CONV[rank](4, 4, 3, padding=1), nn.ReLU())
        self.unused = nn.Linear(1, 1)
        self.stem = CONV[rank](1, 4, 2, stride=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.block(self.block(self.stem(x)))
        return {"scores": self.head(features.flatten(2).mean(-1)), "features": features}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers_come_in_the_order_in_which_they_run(rank: int) -> None:
    layers = list_layers(Backwards(rank), torch.rand(2, 1, *(8, 12, 16)[:rank]))
    assert [layer.path for layer in layers] == ["stem", "block", "block.0", "block.1", "head"]
    stem, block, conv, relu, head = layers
    cells = (4, 6, 8)[:rank]
    assert (stem.type, stem.calls, stem.shapes) == (f"Conv{rank}d", 1, ((2, 4, *cells),))
    assert (block.calls, conv.calls, relu.calls, head.calls) == (2, 2, 2, 1)
    assert stem.parameters == 4 * 2**rank + 4
    assert block.parameters == conv.parameters == 4 * 4 * 3**rank + 4
    assert [layer.spatial for layer in layers] == [True, True, True, True, False]
    assert [layer.leaf for layer in layers] == [True, False, True, True, True]
    assert relu.start == (0.5,) * rank
    assert relu.stride == (2.0,) * rank
    assert head.shapes == ((2, 2),)


def test_several_outputs_and_shared_modules() -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"deep": [x[..., ::2], x], "name": "x"}

    shared = nn.Conv1d(1, 1, 3)
    network = nn.ModuleDict({"a": shared, "b": shared})
    network.forward = lambda x: Several()(network["b"](network["a"](x)))  # type: ignore[method-assign]
    (layer,) = list_layers(network, torch.rand(1, 1, 9))
    assert (layer.path, layer.calls, layer.shapes) == ("a", 2, ((1, 1, 5),))
    several = nn.Sequential(Several())
    assert list_layers(several, torch.rand(1, 1, 8))[0].shapes == ((1, 1, 4), (1, 1, 8))


def test_find_layer() -> None:
    network = Backwards(2)
    assert find_layer(network, "block.0") is network.block[0]
    for wrong in ("blok.0", "block.7", "block.0.weight"):
        with pytest.raises(ModelError, match=rf"no layer '{wrong}'; did you mean .*block"):
            find_layer(network, wrong)


class TestLastConvolution:
    """The last feature map before the head, whatever the family of the network."""

    def path(self, network: nn.Module, *shape: int) -> str:
        return last_feature_layer(network.eval(), torch.rand(1, *shape))

    def test_classifier_after_norm_and_rectifier(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(4, 6, 1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )
        assert self.path(network, 1, 16, 16) == "2"

    @pytest.mark.parametrize("inplace", [False, True])
    def test_the_layer_gives_the_map_that_the_head_sees(self, inplace: bool) -> None:
        """In-place rectifiers write into the tensor of the layer before them."""
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 2, 1))
        assert self.path(network, 1, 16, 16) == "1"

    @pytest.mark.parametrize("classes", [1, 2, 5])
    def test_segmentation_head_is_left_out(self, classes: int) -> None:
        network = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, classes, 1), nn.Sigmoid()
        )
        assert self.path(network, 1, 8, 8, 8) == "1"

    def test_as_many_features_as_classes(self) -> None:
        """Two convolutions at the most count as the head; the features are found all the same."""
        layers = [nn.Conv2d(1, 2, 3)]
        for _ in range(3):
            layers += [nn.Conv2d(2, 2, 3)]
        assert self.path(nn.Sequential(*layers), 1, 16, 16) == "1"

    def test_fully_convolutional_classifier(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 3, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        assert self.path(network, 1, 16, 16) == "1"

    def test_scores_that_are_resized(self) -> None:
        class Resized(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Conv2d(1, 4, 3, 2, 1)
                self.head = nn.Conv2d(4, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                return F.interpolate(self.head(F.relu(self.body(x))), x.shape[2:])

        assert self.path(Resized(), 1, 16, 16) == "body"

    def test_no_features(self) -> None:
        with pytest.raises(ModelError, match="no layer before the head has several channels"):
            self.path(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), 1, 8, 8)

    @pytest.mark.parametrize(
        ("name", "arguments", "shape", "path"),
        [
            ("resnet10", {"spatial_dims": 2, "n_input_channels": 1}, (64, 64), "layer4.0"),
            (
                "DenseNet",
                {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4}
                | {"growth_rate": 2, "block_config": (1, 2)},
                (64, 64),
                "class_layers.relu",
            ),
            (
                "ViT",
                {"in_channels": 1, "img_size": (16, 16), "patch_size": 4, "hidden_size": 8}
                | {"mlp_dim": 8, "num_layers": 2, "num_heads": 2, "classification": True}
                | {"spatial_dims": 2},
                (16, 16),
                "norm",
            ),
            (
                "VNet",
                {"spatial_dims": 3, "in_channels": 1, "out_channels": 2},
                (16, 16, 16),
                "up_tr32.act_function2",
            ),
            (
                "DynUNet",
                {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "kernel_size": [3, 3, 3]}
                | {"strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 6, 8]},
                (16, 16),
                "upsamples.1.conv_block",
            ),
            (
                "SegResNet",
                {"spatial_dims": 2, "init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
                (16, 16),
                "act_mod",
            ),
        ],
    )
    def test_monai(
        self, name: str, arguments: dict[str, object], shape: tuple[int, ...], path: str
    ) -> None:
        nets = pytest.importorskip("monai.networks.nets")
        assert self.path(getattr(nets, name)(**arguments), 1, *shape) == path


def test_the_unet_of_the_zoo() -> None:
    from voxplain.zoo import unet

    network = unet(2, 1, 3, (4, 6, 8))
    layers = {layer.path: layer for layer in list_layers(network, torch.rand(1, 1, 16, 24))}
    assert all(layer.geometry.exact for layer in layers.values())
    path = last_feature_layer(network, torch.rand(1, 1, 16, 24))
    assert path.startswith("dec1")
    assert layers[path].stride == (1, 1)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real networks are not in this checkout")
def test_real_networks() -> None:
    folder = DATA / "brain_extraction"
    spec = ModelSpec(factory="unet3d.py:UNet3D", weights="deepbrain_unet3d.pt")
    network = load_network(spec, trust=True, base=folder)
    layers = {layer.path: layer for layer in list_layers(network, torch.rand(1, 1, 32, 32, 32))}
    assert all(layer.geometry.exact for layer in layers.values())
    # Pooling by 2 begins at (2 - 1) / 2; TensorFlow's up-convolution of 3 is cut to size.
    assert layers["pool.2"].start == (3.5,) * 3
    assert layers["pool.2"].stride == (8,) * 3
    assert last_feature_layer(network, torch.rand(1, 1, 32, 32, 32)) == "merge.2.1"


def test_convolutional_stages_end_after_their_activation_and_without_the_head() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(2)
            self.plain = nn.Conv2d(4, 6, 1)
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, image: Tensor) -> Tensor:
            value = self.stem(image)
            value = self.relu(self.first(value))
            value = self.relu(self.second(value) + value)
            return self.head(self.plain(self.pool(value)))

    found = convolution_stages(Residual().eval(), torch.zeros(1, 1, 8, 8))
    assert found == ["stem.1", "relu#0", "relu#1", "plain"]
