"""The INFORM table in one go: thirty maps with AUC, best Dice and fidelity."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from captum import attr
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Timing, race
from benchmarks.networks import PredictedSum
from benchmarks.page import Table, seconds, times
from benchmarks.peers import Captum
from voxplain.demo import WEIGHTS, template_file
from voxplain.metrics import evaluate
from voxplain.preprocess import apply
from voxplain.regions.scales import scales
from voxplain.zoo import unet3d

sys.path.insert(0, str(Path(__file__).parents[1] / "studies" / "inform_demo"))
import methods as study

HEADER = ("what", "voxplain", "captum, PAIR, scikit-learn", "others / voxplain", "by CPU time")
LABEL, LEVELS = 3, 40
TARGET = {"kind": "pixelwise", "label": LABEL}
SCORES = ["roc_auc", "max_dice"]
FIDELITY = [{"name": "fidelity", "protocol": "brocki2022"}]


def run(quick: bool = False) -> Table:
    """Maps, scores against a mask, and fidelity; and all of it."""
    network, image, references = _demo((16, 16, 16) if quick else (40, 48, 40))
    mask = network(image).argmax(dim=1)[0] == LABEL
    asked = study.methods()
    found = vx.explain(network, image, asked, TARGET, references=references)
    others = _Others(network, image, references, mask.numpy())
    judged = partial(evaluate, network, image, found, target=TARGET, masks=[mask], controls=False)
    rows, total = [], {name: Timing([0.0], [0.0]) for name in ("voxplain", "others")}
    pairs = {
        f"{len(found)} maps": (
            lambda: vx.explain(network, image, asked, TARGET, references=references),
            others.maps,
        ),
        "AUC and best Dice": (lambda: judged(metrics=SCORES), others.scores),
        "fidelity": (lambda: judged(metrics=FIDELITY), others.fidelity),
    }
    for title, (ours, theirs) in pairs.items():
        # Batch sizes were settled when the maps were made, for both.
        work = {"voxplain": ours, "others": theirs}
        timings = race(work, 1, dict.fromkeys(work, lambda: None))
        if theirs == others.fidelity:
            timings["others"] = _scaled(timings["others"], others.every)
        rows.append(_row(title, timings))
        total = {
            name: Timing([total[name].seconds + one.seconds], [sum((*total[name].cpu, *one.cpu))])
            for name, one in timings.items()
        }
    rows.append(_row("all", total))
    return Table("inform", HEADER, rows, (_note(image),))


def _note(image: Tensor) -> str:
    shape = "x".join(map(str, image.shape[2:]))
    return (
        f"The demo's U-Net on {shape} voxels of the template. Backpropagation, deconvolution, "
        "integrated gradients from black and from black and white, expected gradients; plain, "
        "under SmoothGrad and its square; by voxel and by region. voxplain takes "
        f"{study.passes()} gradient passes for all of them. Captum has its fastest batch. The "
        "segments are found before, on both sides; PAIR's XRAI puts them together in its fast "
        "form, since its full form takes hours for that many segments of a volume, and voxplain "
        "in the full one. Fidelity is not in those libraries: a loop over the "
        f"{LEVELS} levels of both orders stands for it, one image at a time; its time is that of "
        f"every {_Others.every}th map, times {_Others.every}."
    )


def _demo(shape: Sequence[int]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, the middle of its brain, and the same upside down and back to front."""
    network = unet3d().eval().requires_grad_(False)
    with as_file(files("voxplain") / "data" / WEIGHTS) as weights:
        network.load_state_dict(load_file(weights))
    steps = [
        {"kind": "reorient", "axes": "RAS"},
        {"kind": "spacing", "size": 2.0},
        {"kind": "crop_foreground", "margin": 2},
        {"kind": "normalize", "mode": "minmax"},
        {"kind": "center_crop_pad", "shape": list(shape)},
    ]
    image = apply(vx.io.read_image(template_file()), steps).data[None]
    turned = [image.flip(axes) for axes in ((3,), (4,), (3, 4), (2, 4))]
    return network, image.as_subclass(Tensor), torch.cat(turned)


class _Others:
    """The same with captum, PAIR's saliency, scikit-learn and loops.

    Args:
        network: Of the demo.
        image: ``(1, 1, *spatial)``.
        references: ``(n, 1, *spatial)``.
        mask: What maps are compared with, ``(*spatial)``.

    Attributes:
        every: Every so many maps are gone through in the loops of fidelity, which take minutes.
    """

    every = 6

    def __init__(
        self, network: nn.Module, image: Tensor, references: Tensor, mask: NDArray[np.bool_]
    ) -> None:
        self.network, self.image, self.references, self.mask = network, image, references, mask
        self.captum = Captum(PredictedSum(network, image, LABEL), image).tuned(study.STEPS)
        self.black = torch.full_like(image, float(image.min()))
        self.white = torch.full_like(image, float(image.max()))
        self.sigma = study.SIGMA * float(image.max() - image.min())
        found = scales(image[0])
        cells = found.cells.numpy()
        self.segments = [row.toarray()[0].astype(bool)[cells] for row in found.members]
        self.found = [image.abs().numpy()[0, 0]] * 30

    def maps(self) -> None:
        """Fifteen by voxel, and fifteen by region."""
        pixel = [map.detach().abs().numpy()[0, 0] for map in self._pixel()]
        self.found = [*pixel, *(self._regions(map) for map in pixel)]

    def scores(self) -> list[tuple[float, float]]:
        """Of each map the area under the ROC curve, and the best Dice of a hundred top sets."""
        from sklearn.metrics import roc_auc_score

        truth = self.mask.ravel()
        return [(roc_auc_score(truth, map.ravel()), self._best_dice(map)) for map in self.found]

    def fidelity(self) -> list[float]:
        """Of some maps the area between two curves of Dice with what was predicted."""
        return [self._area(map, 1) - self._area(map, -1) for map in self.found[:: self.every]]

    def _pixel(self) -> Iterator[Tensor]:
        captum = self.captum
        yield captum.saliency()
        yield captum.deconvolution()
        yield captum.integrated_gradients(study.STEPS, self.black)
        yield self._black_white(lambda b: captum.integrated_gradients(study.STEPS, b))
        yield captum.expected_gradients(self.references, study.SAMPLES)
        for kind in ("smoothgrad", "smoothgrad_sq"):
            saliency = attr.Saliency(captum.network)
            yield captum.smoothgrad(saliency, study.COPIES, self.sigma, kind, abs=False)
            deconvolution = attr.Deconvolution(captum.network)
            yield captum.smoothgrad(deconvolution, study.COPIES, self.sigma, kind)
            yield self._noisy_path(kind, self.black)
            yield self._black_white(partial(self._noisy_path, kind))
        yield from self._noisy_expected()

    def _black_white(self, path: Callable[[Tensor], Tensor]) -> Tensor:
        return (path(self.black) + path(self.white)) / 2

    def _noisy_path(self, kind: str, baseline: Tensor) -> Tensor:
        return self.captum.smoothgrad(
            attr.IntegratedGradients(self.captum.network),
            study.COPIES_OF_PATHS,
            self.sigma,
            kind,
            baselines=baseline,
            n_steps=study.STEPS,
            method="gausslegendre",
            internal_batch_size=self.captum.batch,
        )

    def _noisy_expected(self) -> tuple[Tensor, Tensor]:
        """Captum's noise tunnel cannot hold its gradient SHAP: one loop feeds both powers."""
        found = []
        for _ in range(study.COPIES_OF_PATHS):
            noisy = self.image + self.sigma * torch.randn_like(self.image)
            copy = Captum(self.captum.network, noisy, None, self.captum.batch)
            found.append(copy.expected_gradients(self.references, study.SAMPLES).detach())
        maps = torch.stack(found)
        return maps.mean(dim=0), maps.square().mean(dim=0)

    def _regions(self, map: NDArray[np.float32]) -> NDArray[np.float32]:
        from saliency.core import XRAI, XRAIParameters

        return XRAI().GetMask(
            self.image.numpy()[0, 0][..., None],
            None,
            segments=self.segments,
            base_attribution=map[..., None],
            extra_parameters=XRAIParameters(algorithm="fast"),
        )

    def _best_dice(self, map: NDArray[np.float32]) -> float:
        inside, best = int(self.mask.sum()), 0.0
        for threshold in np.percentile(map, range(100)):
            top = map >= threshold
            best = max(best, 2 * int((top & self.mask).sum()) / (int(top.sum()) + inside))
        return best

    def _area(self, map: NDArray[np.float32], sign: int) -> float:
        """Of the Dice while voxels are set to black, the least (1) or the most (-1) first."""
        order = torch.from_numpy(np.argsort(sign * map.ravel(), kind="stable"))
        curve = []
        with torch.no_grad():
            before = self.network(self.image).argmax(dim=1) == LABEL
            for level in range(LEVELS + 1):
                shown = self.image.clone()
                count = round(len(order) * level / LEVELS)
                shown.view(-1)[order[:count]] = float(self.black.flatten()[0])
                after = self.network(shown).argmax(dim=1) == LABEL
                both = int((before & after).sum())
                curve.append(2 * both / max(1, int(before.sum()) + int(after.sum())))
        return float(np.trapezoid(curve)) / LEVELS


def _scaled(timing: Timing, factor: int) -> Timing:
    return Timing([timing.seconds * factor], [timing.cpu_seconds * factor])


def _row(title: str, timings: Mapping[str, Timing]) -> list[str]:
    ours, others = timings["voxplain"], timings["others"]
    wall, cpu = others.times(ours)
    return [title, seconds(ours.seconds), seconds(others.seconds), times(wall), times(cpu)]
