"""Checks the trained demo network: Dice on the template as the demo sees it, and a picture.

python studies/demo/check.py [--weights WEIGHTS] [--picture studies/demo/segmentation.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.torch import load_file
from template import TISSUES, read_template, template_labels, template_path
from torch import Tensor
from train import WEIGHTS, dice

from voxplain.image import Image
from voxplain.io import read_image
from voxplain.preprocess import apply
from voxplain.zoo import UNet, unet3d

STEPS = [
    {"kind": "reorient", "axes": "RAS"},
    {"kind": "spacing", "size": 2.0},
    {"kind": "crop_foreground", "margin": 2},
    {"kind": "pad_to_multiple", "multiple": 4},
    {"kind": "normalize", "mode": "minmax"},
]
WHITE_MATTER = TISSUES.index("white matter")


def main() -> None:
    """Prints Dice, volumes and times, and draws three planes."""
    arguments = _arguments()
    image = apply(read_image(template_path("t1")), STEPS)
    network = unet3d().eval().requires_grad_(False)
    network.load_state_dict(load_file(arguments.weights))
    labels, gradient = explain_white_matter(network, image.data[None])
    truth = image.project(torch.from_numpy(template_labels(read_template())))
    for index, (name, score) in enumerate(zip(TISSUES, dice(labels, truth), strict=True)):
        volume = float((labels == index).sum()) * image.grid.voxel_volume / 1000
        print(f"{name}: Dice {score:.3f}, {volume:.0f} mL")
    draw(image, labels, truth, gradient.abs()).savefig(arguments.picture, dpi=80)


def explain_white_matter(network: UNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted labels, and the gradient of the logits summed over predicted white matter."""
    start = perf_counter()
    x = x.clone().requires_grad_()
    logits = network(x)
    labels = logits.argmax(dim=1)
    forward = perf_counter()
    score = logits[:, WHITE_MATTER][labels == WHITE_MATTER].sum()
    (gradient,) = torch.autograd.grad(score, x)
    seconds = (forward - start, perf_counter() - forward)
    print(f"{tuple(x.shape)}: forward {seconds[0]:.2f} s, backward {seconds[1]:.2f} s")
    return labels[0], gradient[0, 0]


def draw(image: Image, labels: Tensor, truth: Tensor, saliency: Tensor) -> Figure:
    """Rows: image, reference, prediction, plain saliency. Columns: three planes."""
    figure = Figure(figsize=(9, 12), layout="constrained")
    axes = figure.subplots(4, 3)
    peak = float(saliency.flatten().kthvalue(int(0.995 * saliency.numel())).values)
    rows = [
        (image.data[0], "gray", 1.0, "image"),
        (truth, "viridis", 3.0, "reference"),
        (labels, "viridis", 3.0, "prediction"),
        (saliency, "inferno", peak, "|gradient|"),
    ]
    for row, (volume, colors, top, title) in zip(axes, rows, strict=True):
        for axis, plot in enumerate(row):
            _show(plot, volume, axis, colors, top)
        row[0].set_title(title)
    return figure


def _show(plot: Axes, volume: Tensor, axis: int, colors: str, top: float) -> None:
    plane = volume.select(axis, int(volume.shape[axis] * (0.6 if axis == 0 else 0.5)))
    plot.imshow(plane.T, cmap=colors, vmin=0, vmax=top, origin="lower")
    plot.set_axis_off()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--picture", type=Path, default=Path(__file__).parent / "segmentation.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
