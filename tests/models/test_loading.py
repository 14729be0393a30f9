"""Networks are loaded as they were saved, and misfits are errors of one sentence."""

from __future__ import annotations

import copy
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from voxplain.errors import ModelError, VoxplainWarning
from voxplain.models.loading import (
    ModelSpec,
    installed,
    load_network,
    weights_sha256,
)
from voxplain.models.loading.weights import read_weights

DATA = Path(__file__).parents[2] / "../shared/data"

FACTORY = """
from torch import nn
from neighbor import WIDTH

def build(channels=1, classes=2):
    from neighbor import CLASSES_ARE_ADDED
    return nn.Sequential(nn.Conv3d(channels, WIDTH, 3), nn.BatchNorm3d(WIDTH), nn.ReLU(),
                         nn.Conv3d(WIDTH, classes + CLASSES_ARE_ADDED, 1))

class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()

not_a_function = 3

def not_a_network():
    return 7

def broken():
    raise ValueError("the disk is full")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "neighbor.py").write_text("WIDTH = 4\nCLASSES_ARE_ADDED = 0\n")
    return tmp_path


def reference(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1)
    ).eval()
    network[1].running_mean.uniform_()
    return network


def load(folder: Path, trust: bool = True, **fields: object) -> nn.Module:
    fields = {"factory": "nets.py:build"} | fields
    return load_network(ModelSpec(**fields), trust=trust, base=folder)


def same(one: nn.Module, two: nn.Module) -> bool:
    image = torch.randn(2, 1, 6, 5, 7)
    with torch.no_grad():
        return torch.equal(one.eval()(image), two.eval()(image))


def renamed(network: nn.Module, start: str) -> dict[str, torch.Tensor]:
    return {start + name: tensor for name, tensor in network.state_dict().items()}


CHECKPOINTS = {
    "bare": lambda net: net.state_dict(),
    "state_dict": lambda net: {"epoch": 3, "state_dict": net.state_dict()},
    "model": lambda net: {"model": net.state_dict(), "loss": 0.1},
    "model_state_dict": lambda net: {"model_state_dict": net.state_dict()},
    "nnunet": lambda net: {"network_weights": net.state_dict(), "init_args": {"a": [1]}},
    "with_optimizer": lambda net: {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
        "net": net.state_dict(),
    },
    "data_parallel": lambda net: renamed(net, "module."),
    "lightning": lambda net: {"state_dict": renamed(net, "model.")},
    "net": lambda net: renamed(net, "net."),
    "compiled": lambda net: renamed(net, "_orig_mod."),
    "compiled_and_parallel": lambda net: renamed(net, "module._orig_mod.net."),
    "compiled_inside": lambda net: {
        "module." + name.replace("0.", "0._orig_mod.", 1): value
        for name, value in net.state_dict().items()
    },
    "without_batch_counts": lambda net: {
        name: value for name, value in net.state_dict().items() if "num_batches" not in name
    },
    "half": lambda net: {name: _halved(value) for name, value in net.state_dict().items()},
}


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


class TestWeights:
    @pytest.mark.parametrize("kind", CHECKPOINTS)
    def test_every_checkpoint_gives_the_same_network(self, folder: Path, kind: str) -> None:
        network = reference().half().float()
        torch.save(CHECKPOINTS[kind](network), folder / "w.pt")
        assert same(load(folder, weights="w.pt"), network)

    def test_safetensors(self, folder: Path) -> None:
        save_file(renamed(reference(), "module."), folder / "w.safetensors")
        assert same(load(folder, weights="w.safetensors"), reference())

    def test_weights_of_a_part_fit_the_wrapper_around_it(self, folder: Path) -> None:
        torch.save(reference().state_dict(), folder / "w.pt")
        wrapped = load(folder, factory="nets.py:Wrapper", weights="w.pt")
        assert same(wrapped.inner, reference())

    def test_the_container_that_fits_best_is_taken(self, folder: Path) -> None:
        both = {"discriminator": nn.Linear(3, 3).state_dict(), "ema": reference().state_dict()}
        torch.save(both, folder / "w.pt")
        assert same(load(folder, weights="w.pt"), reference())

    def test_other_parts_of_a_checkpoint_are_left_aside_with_a_warning(self, folder: Path) -> None:
        torch.save(renamed(reference(), "net.") | {"loss.weight": torch.ones(2)}, folder / "w.pt")
        with pytest.warns(VoxplainWarning, match=r"1 tensors outside 'net.'.*loss.weight"):
            assert same(load(folder, weights="w.pt"), reference())

    def test_an_explicit_prefix_wins(self, folder: Path) -> None:
        both = renamed(reference(0), "student.") | renamed(reference(1), "teacher.")
        torch.save(both, folder / "w.pt")
        with pytest.warns(VoxplainWarning, match="left aside"):
            assert same(load(folder, weights="w.pt", prefix="teacher."), reference(1))

    def test_misfit_counts_and_names(self, folder: Path) -> None:
        state = reference().state_dict()
        state["0.weight"] = torch.zeros(4, 2, 3, 3, 3)
        state["9.weight"] = state.pop("3.weight")
        torch.save(state, folder / "w.pt")
        with pytest.raises(ModelError) as caught:
            load(folder, weights="w.pt")
        text = str(caught.value)
        assert "1 missing (3.weight)" in text
        assert "1 not expected (9.weight)" in text
        assert "1 of another shape (0.weight (4, 2, 3, 3, 3) instead of (4, 1, 3, 3, 3))" in text

    def test_nan_weights_have_a_warning(self, folder: Path) -> None:
        state = reference().state_dict()
        state["3.bias"] = torch.full((2,), torch.nan)
        torch.save(state, folder / "w.pt")
        with pytest.warns(VoxplainWarning, match=r"1 tensors hold NaN.*3.bias"):
            load(folder, weights="w.pt")

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_a_broken_file_cannot_be_read_with_or_without_trust(
        self, folder: Path, name: str
    ) -> None:
        (folder / name).write_text("these are not weights")
        with pytest.raises(ModelError, match=rf"weights {name} cannot be read"):
            load(folder, weights=name, trust=True)
        with pytest.raises(ModelError, match=rf"weights {name} cannot be read"):
            load(folder, factory="voxplain.zoo:unet3d", weights=name, trust=False)

    def test_a_truncated_checkpoint_cannot_be_read(self, folder: Path) -> None:
        torch.save(reference().state_dict(), folder / "w.pt")
        content = (folder / "w.pt").read_bytes()
        (folder / "w.pt").write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match=r"weights w.pt cannot be read"):
            load(folder, weights="w.pt")

    def test_no_tensors_at_all(self, folder: Path) -> None:
        torch.save({"epoch": 3}, folder / "w.pt")
        with pytest.raises(ModelError, match=r"a dict with 'epoch', no tensors"):
            load(folder, weights="w.pt")


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.trace), "w"))


INSTALLED = """
import os
from torch import nn
import beside

nearby = beside.build

class Head(nn.Conv2d):
    def __init__(self, classes=2):
        super().__init__(1, classes, 1)

    @classmethod
    def made(cls) -> nn.Module:
        return cls()

def build(classes=2) -> Head:
    return Head(classes)

def silent():
    return Head()

def load_any() -> nn.Module:
    return Head()
"""

BESIDE = """
from torch import nn

open("imported", "w").close()

def build() -> nn.Module:
    return nn.Identity()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; beside it a file that can be imported too."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_nets.py").write_text(INSTALLED)
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(folder))
    for name in ("installed_nets", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


class TestTrust:
    def test_a_pickle_runs_nothing_until_it_is_trusted(self, folder: Path) -> None:
        trace = folder / "trace"
        torch.save({"state_dict": reference().state_dict(), "args": Evil(trace)}, folder / "w.pt")
        spec = ModelSpec(factory="torch.nn:Identity", weights="w.pt")
        with pytest.raises(ModelError, match=r"w.pt holds more than tensors.*--trust"):
            load_network(spec, base=folder)
        assert not trace.exists()
        assert same(load(folder, weights="w.pt", trust=True), reference())
        assert trace.exists()

    @pytest.mark.parametrize("fields", [{"factory": "nets.py:build"}, {"file": "net.pt"}])
    def test_code_from_a_file_needs_trust(self, folder: Path, fields: dict[str, str]) -> None:
        torch.save(reference(), folder / "net.pt")
        with pytest.raises(ModelError, match="--trust"):
            load_network(ModelSpec(**fields), base=folder)

    @pytest.mark.parametrize(
        ("factory", "arguments"),
        [
            ("torch.nn:Conv2d", {"in_channels": 1, "out_channels": 3, "kernel_size": 3}),
            ("voxplain.zoo:unet2d", {"classes": 3}),
            ("installed_nets:build", {"classes": 3}),
            ("installed_nets:Head", {"classes": 3}),
        ],
    )
    def test_what_can_only_build_a_network_needs_none(
        self, site: Path, factory: str, arguments: dict[str, object]
    ) -> None:
        network = load_network(ModelSpec(factory=factory, arguments=arguments), base=site.parent)
        assert network(torch.zeros(1, 1, 16, 16)).shape[1] == 3

    @pytest.mark.parametrize(
        ("factory", "arguments", "reason"),
        [
            ("os:system", {"command": "touch made"}, "os belongs to Python"),
            ("subprocess:getoutput", {"cmd": "touch made"}, "subprocess belongs to Python"),
            ("timeit:timeit", {"stmt": "open('made', 'w')"}, "timeit belongs to Python"),
            ("builtins:exec", {}, "builtins belongs to Python"),
            ("torch:load", {"f": "w.pt", "weights_only": False}, "may open files"),
            ("torch.hub:load", {"repo_or_dir": ".", "source": "local"}, "may open files"),
            ("torch.jit:load", {"f": "w.pt"}, "may open files"),
            ("torch.jit:ScriptModule", {}, "no layer of torch.nn"),
            ("torch.utils.data:DataLoader", {"dataset": []}, "no subclass of torch.nn.Module"),
            (
                "voxplain.models.loading.factory:build",
                {"factory": "os:system", "arguments": {"command": "touch made"}, "trust": True},
                "may open files",
            ),
            ("installed_nets:silent", {}, "does not state that it returns"),
            ("installed_nets:load_any", {}, "may open files"),
            ("installed_nets:Head.made", {}, "neither a function of a module nor a class"),
            ("installed_nets:os.system", {"command": "touch made"}, "belongs to Python"),
            ("installed_nets:nearby", {}, "no installed package"),
            ("beside:build", {}, "beside is a file on the import path"),
            ("pip.__main__:main", {}, "is a program"),
        ],
    )
    def test_what_can_do_more_is_not_called(
        self,
        site: Path,
        monkeypatch: pytest.MonkeyPatch,
        factory: str,
        arguments: dict[str, object],
        reason: str,
    ) -> None:
        monkeypatch.chdir(site.parent)
        spec = ModelSpec(factory=factory, arguments=arguments)
        with pytest.raises(ModelError, match=rf"{reason}.*--trust"):
            load_network(spec, base=site.parent)
        assert not (site.parent / "made").exists()

    def test_a_file_beside_the_study_is_not_even_imported(
        self, site: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(site.parent)
        with pytest.raises(ModelError, match="--trust"):
            load_network(ModelSpec(factory="beside:build"), base=site.parent)
        assert not (site.parent / "imported").exists()
        spec = ModelSpec(factory="beside:build")
        assert isinstance(load_network(spec, trust=True, base=site.parent), nn.Identity)
        assert (site.parent / "imported").exists()

    def test_a_package_installed_in_place_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its source may lie anywhere but beside the study."""
        source = tmp_path / "source"
        source.mkdir()
        (source / "editable_nets.py").write_text(BESIDE)
        monkeypatch.syspath_prepend(str(source))
        monkeypatch.chdir(source)
        monkeypatch.setattr(installed, "_editable", lambda: (source,))
        spec = ModelSpec(factory="editable_nets:build")
        with pytest.raises(ModelError, match="--trust"):
            load_network(spec, base=source)
        assert isinstance(load_network(spec, base=tmp_path / "studies"), nn.Identity)


class TestFactory:
    def test_leaves_the_import_path_alone(self, folder: Path) -> None:
        before = list(sys.path)
        load(folder)
        with pytest.raises(ModelError):
            load(folder, factory="nets.py:broken")
        assert sys.path == before

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"factory": "nets.py:biuld"}, r"there is no 'biuld' in it; did you mean build"),
            ({"factory": "gone.py:build"}, r"factory file '.*gone.py' does not exist"),
            ({"factory": "no_such_package:build"}, r"module 'no_such_package' cannot be imported"),
            ({"arguments": {"chanels": 2}}, r"takes no 'chanels'; did you mean channels"),
            ({"factory": "nets.py:broken"}, r"ValueError: the disk is full"),
            ({"factory": "nets.py:not_a_network"}, r"gives a int, not a torch.nn.Module"),
            ({"factory": "nets.py:not_a_function"}, r"is a int, not a function"),
            ({"weights": "gone.pt"}, r"weights '.*gone.pt' does not exist"),
        ],
    )
    def test_mistakes(self, folder: Path, fields: dict[str, object], sentence: str) -> None:
        with pytest.raises(ModelError, match=sentence):
            load(folder, **fields)


class TestSpec:
    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({}, "exactly one of factory, bundle, file and nnunet, not none of them"),
            ({"factory": "a:b", "bundle": "c"}, "not factory and bundle"),
            ({"factory": "ab"}, "pattern"),
            ({"bundle": "c", "arguments": {"a": 1}}, "arguments belong to a factory"),
            ({"file": "c.onnx", "weights": "w.pt"}, "brings its weights"),
            ({"factory": "a:b", "wieghts": "w.pt"}, "Extra inputs"),
            ({"factory": "a:b", "name": "../escape"}, "pattern"),
        ],
    )
    def test_contradictions(self, fields: dict[str, object], sentence: str) -> None:
        with pytest.raises(ValidationError, match=sentence):
            ModelSpec(**fields)

    def test_json_round_trip(self) -> None:
        spec = ModelSpec(name="u", factory="a.b:c", arguments={"k": [1, 2]}, weights="w.pt", head=1)
        assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


class TestFiles:
    def test_pickled_network(self, folder: Path) -> None:
        torch.save(reference(), folder / "net.pt")
        network = load_network(ModelSpec(file="net.pt"), trust=True, base=folder)
        assert same(network, reference())

    def test_a_pickle_that_is_no_network(self, folder: Path) -> None:
        torch.save(reference().state_dict(), folder / "net.pt")
        with pytest.raises(ModelError, match="holds a OrderedDict, no network"):
            load_network(ModelSpec(file="net.pt"), trust=True, base=folder)

    def test_a_file_of_unknown_format(self, folder: Path) -> None:
        (folder / "net.pt").write_text("nothing")
        with pytest.raises(ModelError, match=r"net.pt cannot be unpickled"):
            load_network(ModelSpec(file="net.pt"), trust=True, base=folder)


def write_onnx(path: Path, batch: str | int) -> nn.Conv2d:
    """A convolution as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    node = helper.make_node("Conv", ["image", "w", "b"], ["scores"], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 2, "h", "w"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3, "h", "w"])],
        [
            numpy_helper.from_array(layer.weight.detach().numpy(), "w"),
            numpy_helper.from_array(layer.bias.detach().numpy(), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return layer


class TestOnnx:
    @pytest.mark.parametrize("batch", ["n", 1])
    def test_equals_torch(self, tmp_path: Path, batch: str | int) -> None:
        layer = write_onnx(tmp_path / "net.onnx", batch)
        box = load_network(ModelSpec(file="net.onnx"), base=tmp_path)
        assert box.differentiable is False
        image = torch.randn(3, 2, 9, 7, requires_grad=True)
        torch.testing.assert_close(box(image), layer(image).detach(), atol=1e-6, rtol=1e-5)
        assert box.double()(image.double()).dtype == torch.float64

    def test_copies_and_pickles(self, tmp_path: Path) -> None:
        layer = write_onnx(tmp_path / "net.onnx", "n")
        box = load_network(ModelSpec(file="net.onnx"), base=tmp_path)
        image = torch.randn(1, 2, 5, 5)
        for duplicate in (copy.deepcopy(box), pickle.loads(pickle.dumps(box))):
            torch.testing.assert_close(
                duplicate(image), layer(image).detach(), atol=1e-6, rtol=1e-5
            )
            assert weights_sha256(duplicate) == weights_sha256(box)

    def test_wrong_channels_and_wrong_files(self, tmp_path: Path) -> None:
        write_onnx(tmp_path / "net.onnx", "n")
        box = load_network(ModelSpec(file="net.onnx"), base=tmp_path)
        with pytest.raises(ModelError, match=r"net.onnx takes inputs of shape .* was given"):
            box(torch.zeros(1, 5, 4, 4))
        (tmp_path / "bad.onnx").write_text("nothing")
        with pytest.raises(ModelError, match=r"bad.onnx is no ONNX file"):
            load_network(ModelSpec(file="bad.onnx"), base=tmp_path)


BUNDLE = """
{"imports": ["$import torch"],
 "classes": 3,
 "network_def": {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1,
                 "out_channels": "@classes", "channels": "$tuple(4 * 2**i for i in range(3))",
                 "strides": [2, 2]},
 "device": "$torch.device('cuda:0')"}
"""


class TestBundle:
    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        pytest.importorskip("monai")
        (tmp_path / "b/configs").mkdir(parents=True)
        (tmp_path / "b/models").mkdir()
        (tmp_path / "b/configs/inference.json").write_text(BUNDLE)
        (tmp_path / "b/configs/metadata.json").write_text("{}")
        torch.save(self.network().state_dict(), tmp_path / "b/models/model.pt")
        return tmp_path

    @staticmethod
    def network() -> nn.Module:
        from monai.networks.nets import UNet

        torch.manual_seed(3)
        return UNet(2, 1, 3, (4, 8, 16), (2, 2)).eval()

    def test_needs_trust_and_then_equals_its_network(self, bundle: Path) -> None:
        with pytest.raises(ModelError, match=r"b is a MONAI bundle.*--trust"):
            load_network(ModelSpec(bundle="b"), base=bundle)
        loaded = load_network(ModelSpec(bundle="b"), trust=True, base=bundle).eval()
        image = torch.randn(1, 1, 16, 16)
        assert torch.equal(loaded(image), self.network()(image))

    def test_other_weights(self, bundle: Path) -> None:
        zeros = {
            name: torch.zeros_like(value) for name, value in self.network().state_dict().items()
        }
        save_file(zeros, bundle / "w.safetensors")
        loaded = load_network(
            ModelSpec(bundle="b", weights="w.safetensors"), trust=True, base=bundle
        )
        assert not loaded.eval()(torch.randn(1, 1, 16, 16)).any()

    def test_folders_that_are_no_bundles(self, bundle: Path) -> None:
        with pytest.raises(ModelError, match=r"is no MONAI bundle: there is no configs/inference"):
            load_network(ModelSpec(bundle="."), trust=True, base=bundle)
        (bundle / "b/configs/inference.json").write_text('{"classes": 3}')
        with pytest.raises(ModelError, match=r"bundle b defines no network"):
            load_network(ModelSpec(bundle="b"), trust=True, base=bundle)


class TestLeftAside:
    """What would be taken wrongly or left aside without a word."""

    @pytest.mark.parametrize("kind", [torch.complex64, torch.bool])
    def test_weights_that_are_no_real_numbers(self, folder: Path, kind: torch.dtype) -> None:
        state = renamed(reference(), "module.")
        state["module.0.weight"] = state["module.0.weight"].to(kind)
        torch.save({"state_dict": state}, folder / "w.pt")
        with pytest.raises(ModelError, match=r"0.weight is (complex64|bool), and the network has"):
            load(folder, weights="w.pt")

    def test_boolean_buffers_of_a_network_are_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "nets.py").write_text(
            "import torch\nfrom torch import nn\n"
            "def build():\n    net = nn.Conv2d(1, 1, 1)\n"
            "    net.register_buffer('mask', torch.zeros(2, dtype=torch.bool))\n    return net\n"
        )
        net = nn.Conv2d(1, 1, 1)
        net.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        torch.save(net.state_dict(), tmp_path / "w.pt")
        assert load(tmp_path, weights="w.pt").mask.all()

    def test_a_file_name_that_no_system_takes(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"x: the file cannot be read \(file name too long"):
            load(folder, weights="x" * 5000)


class TestHash:
    def test_depends_on_weights_and_buffers_alone(self) -> None:
        network = reference()
        first = weights_sha256(network)
        assert first == weights_sha256(reference())
        assert first == weights_sha256(network.train())
        for tensor in (network[1].running_mean, network[3].bias.data):
            tensor[0] += 1
            assert weights_sha256(network) != first
            tensor[0] -= 1
        assert first != weights_sha256(reference().half())

    def test_names_count(self) -> None:
        one, two = nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"b": nn.Linear(2, 2)})
        two["b"].load_state_dict(one["a"].state_dict())
        assert weights_sha256(one) != weights_sha256(two)

    def test_any_dtype_and_empty_tensors(self) -> None:
        network = nn.Linear(2, 2).bfloat16()
        network.register_buffer("none", torch.zeros(0))
        network.register_buffer("flag", torch.tensor(True))
        first = weights_sha256(network)
        network.flag.fill_(False)
        assert len(first) == 64 != weights_sha256(network)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(4)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            content = bytes(2**27) if name.endswith("/data/0") else plain.read(name)
            packed.writestr(name, content)
    (tmp_path / "net.py").write_text("from torch import nn\nbuild = lambda: nn.PReLU(4)\n")
    for spec in (
        ModelSpec(factory="net.py:build", weights="bomb.pt"),
        ModelSpec(file="bomb.pt"),
    ):
        with pytest.raises(ModelError, match=r"bomb\.pt would unpack to 128 MiB"):
            load_network(spec, trust=True, base=tmp_path)
    assert read_weights(tmp_path / "plain.pt")["weight"].tolist() == [0] * 4


@pytest.mark.skipif(not DATA.is_dir(), reason="the real networks are not in this checkout")
@pytest.mark.parametrize(
    ("factory", "weights", "shape"),
    [
        (
            "brain_extraction/unet3d.py:UNet3D",
            "brain_extraction/deepbrain_unet3d.pt",
            (1, 1, 32, 32, 32),
        ),
        ("retina_vessels/wnet.py:WNet", "retina_vessels/wnet_drive.pt", (1, 3, 64, 64)),
    ],
)
def test_real_networks(factory: str, weights: str, shape: tuple[int, ...]) -> None:
    spec = ModelSpec(factory=str(factory), weights=weights)
    network = load_network(spec, trust=True, base=DATA).eval()
    output = network(torch.rand(shape))
    output = output[-1] if isinstance(output, tuple) else output
    assert torch.isfinite(output).all()
    assert output.shape[2:] == shape[2:]
