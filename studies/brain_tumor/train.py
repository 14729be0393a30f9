"""Trains the two networks of the study on BraTS cases; minutes on two cores.

python studies/brain_tumor/train.py DATA OUTPUT [--epochs 30]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from data import case_ids, slice_numbers, slices, volume
from network import CLASSES, simunet, unet2d
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

CLASS_WEIGHTS = (1.0, 5.0, 2.0, 4.0)
PARTS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "ED": (2,)}
SIDE = 96
"""Pixels per axis of a training image; slices are padded to it."""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the cases, with cases.csv")
    parser.add_argument("output", type=Path, help="folder for the weights")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--only", choices=("unet2d", "simunet"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    images, labels = training_set(options.data)
    for name, make in (("unet2d", unet2d), ("simunet", simunet)):
        if options.only not in (None, name):
            continue
        torch.manual_seed(0)
        network = make()
        train(network, images, labels, options.epochs)
        save_file(network.state_dict(), options.output / f"{name}.safetensors")
        for part, values in dice_of(network, options.data).items():
            print(f"{name} {part}: Dice {sum(values) / len(values):.3f} of {len(values)} cases")


def training_set(folder: Path) -> tuple[Tensor, Tensor]:
    """All training slices ``(n, 4, 96, 96)`` with their classes ``(n, 96, 96)``."""
    pairs = [(_padded(image), _padded(labels)) for image, labels in slices(folder, "train")]
    return torch.stack([image for image, _ in pairs]), torch.stack([each for _, each in pairs])


def _padded(values: Tensor) -> Tensor:
    width, height = values.shape[-2:]
    return functional.pad(values, (0, SIDE - height, 0, SIDE - width))


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Adam with a one-cycle rate on cross-entropy and generalized Dice, under augmentation."""
    batch, start = 16, time.perf_counter()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for first in range(0, len(images) // batch * batch, batch):
            chosen = order[first : first + batch]
            shown, truth = _augmented(images[chosen], labels[chosen])
            loss = _loss(network(shown), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - start
        mean = total / (len(images) // batch)
        print(f"epoch {epoch + 1} of {epochs}: loss {mean:.3f}, {seconds:.0f} s", flush=True)
    network.eval()


def _augmented(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored, turned by up to 15 degrees, scaled, and with other contrasts."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * 0.5
    scale = 1 + (torch.rand(count) - 0.5) * 0.2
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale * mirror, -angle.sin() * scale, zero], dim=1),
            torch.stack([angle.sin() * scale * mirror, angle.cos() * scale, zero], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    truth = functional.grid_sample(
        labels[:, None].float(), grid, mode="nearest", align_corners=False
    )[:, 0].long()
    gain = 1 + 0.2 * torch.randn(count, images.shape[1], 1, 1)
    shift = 0.2 * torch.randn(count, images.shape[1], 1, 1)
    return moved * gain + shift * (moved != 0), truth


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    entropy = functional.cross_entropy(logits, labels, torch.tensor(CLASS_WEIGHTS))
    probability = logits.softmax(dim=1)
    truth = functional.one_hot(labels, len(CLASSES)).movedim(-1, 1).float()
    both = (probability * truth).sum(dim=(0, 2, 3))
    sizes = (probability + truth).sum(dim=(0, 2, 3))
    return entropy + 1 - (2 * both[1:] / (sizes[1:] + 1)).mean()


@torch.no_grad()
def dice_of(network: nn.Module, folder: Path) -> dict[str, list[float]]:
    """Dice of every part in every test case, over the slices with enough brain."""
    network.eval()
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for case in case_ids(folder, "test"):
        voxels, labels = volume(folder, case)
        numbers = slice_numbers(folder, case)
        images = voxels[..., numbers].permute(3, 0, 1, 2)
        predicted = torch.cat([network(each).argmax(dim=1) for each in images.split(16)])
        truth = labels[..., numbers].permute(2, 0, 1)
        for part, classes in PARTS.items():
            wanted = torch.tensor(classes)
            mask, reference = torch.isin(predicted, wanted), torch.isin(truth, wanted)
            both = 2 * float((mask & reference).sum())
            found[part].append(both / max(1.0, float(mask.sum() + reference.sum())))
    return found


if __name__ == "__main__":
    main()
