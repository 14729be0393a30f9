"""A trained folder of nnU-Net v2: plans, data set, and the checkpoints of its folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxplain.errors import ModelError
from voxplain.models.loading.fitting import load_weights
from voxplain.models.loading.nnunet.architecture import build_network
from voxplain.models.loading.nnunet.checkpoint import Checkpoint
from voxplain.models.loading.nnunet.json_files import read_json
from voxplain.models.loading.nnunet.labels import Labels
from voxplain.models.loading.nnunet.plans import Plans
from voxplain.models.loading.opened import Beside, OpenedNetwork

Fold = Annotated[int, Field(ge=0, strict=True)] | Literal["all"]
Folds = tuple[Fold, ...]


class FoldEnsemble(nn.Module):
    """The mean of the outputs of several networks, as nnU-Net joins its folds.

    Args:
        networks: With equal inputs and outputs.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.folds = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        """The mean output ``(B, K, *spatial)`` for ``(B, C, *spatial)``."""
        return torch.stack([fold(inputs) for fold in self.folds]).mean(dim=0)


def open_nnunet(
    folder: Path, folds: Folds, checkpoint: str | None, *, trust: bool, base: Path
) -> OpenedNetwork:
    """The network of some folds, with the preprocessing, windows and labels of nnU-Net.

    Args:
        folder: Holds ``plans.json``, ``dataset.json`` and ``fold_0`` or others.
        folds: Those whose mean is the network; all that are there if empty.
        checkpoint: Name of the file in each fold; the final one, or else the best, if None.
        trust: Whether checkpoints may hold more than tensors and numbers, and plans may name any
            class.
        base: Folder of the study.

    Raises:
        ModelError: In a sentence, if the folder is incomplete or its plans are not supported.
    """
    plans_file, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    folds = folds or _folds_in(folder)
    read = [_checkpoint(folder, fold, checkpoint, trust) for fold in folds]
    plans = Plans.of(plans_file, read[0].configuration or folder.resolve().name.split("__")[-1])
    labels, channels = Labels.of(dataset), _channels(dataset)
    networks = [_network(each, plans, channels, labels, trust, base) for each in read]
    beside = Beside(
        preprocess=plans.steps(channels),
        window=plans.window,
        classes=labels.names,
        activation="sigmoid" if labels.has_regions else "softmax",
        remarks=tuple(_remarks(read, folds)),
    )
    return OpenedNetwork(networks[0] if len(networks) == 1 else FoldEnsemble(networks), beside)


def _folds_in(folder: Path) -> Folds:
    trained = (path for path in folder.glob("fold_*") if any(path.glob("checkpoint_*.pth")))
    names = sorted(path.name.removeprefix("fold_") for path in trained)
    folds = tuple(int(name) for name in names if name.isdecimal())
    if not folds and "all" in names:
        return ("all",)
    if not folds:
        raise ModelError(f"{str(folder)!r} holds no trained fold, such as fold_0")
    return tuple(sorted(folds))


def _checkpoint(folder: Path, fold: Fold, name: str | None, trust: bool) -> Checkpoint:
    path = folder / f"fold_{fold}"
    if not path.is_dir():
        there = ", ".join(sorted(each.name for each in folder.glob("fold_*"))) or "no fold"
        raise ModelError(f"{str(folder)!r} holds no {path.name}; {there} is there")
    return Checkpoint.read(path, name, trust=trust)


def _network(
    read: Checkpoint, plans: Plans, channels: int, labels: Labels, trust: bool, base: Path
) -> nn.Module:
    if read.configuration not in (None, plans.name):
        raise ModelError(
            f"{read.file.parent.name} was trained as {read.configuration}, and other folds as "
            f"{plans.name}; they are no ensemble"
        )
    network = build_network(plans, channels, len(labels.names), trust=trust, base=base)
    weights: Mapping[str, Tensor] = read.weights
    if plans.takes_slices:
        kernels = _kernels_of(network)
        weights = {
            name: tensor[:, :, None] if name in kernels and tensor.ndim == 4 else tensor
            for name, tensor in weights.items()
        }
    try:
        load_weights(network, weights, f"{read.file.parent.name}/{read.file.name}", prefix="")
    except ModelError as error:
        raise ModelError(f"{error} (trained by {read.trainer}, built as plans.json says)") from None
    return network.eval()


def _kernels_of(network: nn.Module) -> set[str]:
    """Names of the parameters with an axis along the slices of a volume."""
    return {name for name, tensor in network.state_dict().items() if tensor.ndim == 5}


def _channels(dataset: Mapping[str, Any]) -> int:
    stated = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(stated, Mapping) or not stated:
        raise ModelError("dataset.json states no channel_names")
    return len(stated)


def _remarks(read: Sequence[Checkpoint], folds: Folds) -> list[str]:
    remarks = []
    axes = sorted({axis for each in read for axis in each.mirrored})
    if axes:
        remarks.append(
            "nnU-Net averages its prediction over copies that are mirrored along axes "
            f"{', '.join(map(str, axes))} of the network; this is off: one pass without mirroring "
            "is explained"
        )
    if len(folds) > 1:
        remarks.append(f"the mean of the folds {', '.join(map(str, folds))} is explained")
    if any(each.file.name == "checkpoint_best.pth" for each in read):
        remarks.append("checkpoint_best.pth is taken, not the final checkpoint")
    return remarks
