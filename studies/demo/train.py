"""Trains the demo's U-Net on the MNI152 template; about nine minutes on one core.

python studies/demo/train.py [--steps 900] [--output src/voxplain/data/demo_unet3d.safetensors]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import torch
from augment import SHAPE, Views
from safetensors.torch import save_file
from template import TISSUES, read_template
from torch import Tensor, nn
from torch.nn import functional

from voxplain.zoo import UNet, unet3d

WEIGHTS = Path(__file__).parents[2] / "src" / "voxplain" / "data" / "demo_unet3d.safetensors"
CROP = (56, 64, 56)
LEARNING_RATE = 5e-3


def main() -> None:
    """Trains, measures on views that were not trained on, and writes the weights."""
    arguments = _arguments()
    torch.set_num_threads(1)  # one thread adds up in one order: the same weights every time
    torch.manual_seed(0)
    template = read_template()
    network = train(Views(template, seed=0), steps=arguments.steps)
    report(network, Views(template, seed=2), count=20)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, arguments.output)


def train(views: Views, steps: int) -> UNet:
    """The U-Net of the package's defaults after ``steps`` crops."""
    network = unet3d().train()
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    draw, start = torch.Generator().manual_seed(3), perf_counter()
    for step in range(1, steps + 1):
        image, truth = crop(*views.next(), draw)
        loss = mistakes(network(image), truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            seconds = perf_counter() - start
            print(f"step {step}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    return network.eval()


def crop(image: Tensor, truth: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random box of :data:`CROP` voxels from both."""
    for axis, (size, kept) in enumerate(zip(SHAPE, CROP, strict=True), start=2):
        start = int(torch.randint(size - kept + 1, (), generator=draw))
        image, truth = image.narrow(axis, start, kept), truth.narrow(axis, start, kept)
    return image, truth


def mistakes(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against tissue probabilities plus one minus the mean soft Dice."""
    overlap = (logits.softmax(dim=1) * truth).sum(dim=(0, 2, 3, 4))
    total = (logits.softmax(dim=1) + truth).sum(dim=(0, 2, 3, 4))
    return functional.cross_entropy(logits, truth) + 1 - (2 * overlap / (total + 1)).mean()


def report(network: UNet, views: Views, count: int) -> None:
    """Prints the mean Dice per tissue, over ``count`` whole volumes."""
    scores = []
    with torch.no_grad():
        for _ in range(count):
            image, truth = views.next()
            scores.append(dice(network(image).argmax(dim=1), truth.argmax(dim=1)))
    lowest = torch.stack(scores).amin(dim=0)
    for name, mean, low in zip(TISSUES, torch.stack(scores).mean(dim=0), lowest, strict=True):
        print(f"held-out views: {name} Dice {mean:.3f} (lowest {low:.3f})")


def dice(labels: Tensor, truth: Tensor) -> Tensor:
    """Dice of each tissue, ``(4,)``."""
    pairs = [(labels == index, truth == index) for index in range(len(TISSUES))]
    return torch.stack([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
