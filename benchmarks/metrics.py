"""Infidelity and max-sensitivity of ten methods on one volume: together, and one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from captum import attr
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Timing, Work, race
from benchmarks.networks import classifier
from benchmarks.page import Table, seconds, times
from voxplain.attribution.spread import intensity_range
from voxplain.metrics import evaluate

HEADER = (
    "what",
    "voxplain, all together",
    "captum, one by one",
    "captum / voxplain",
    "by CPU time",
    "captum with everything at once / voxplain",
)
TARGET, CHANGES, NEIGHBORS = 1, 64, 8
STEPS, COPIES = 16, 25
BATCH = 8
"""Fastest for captum among 1, 8 and everything at once, for each of its methods."""

Explain = Callable[[Tensor], Tensor]


def run(quick: bool = False) -> Table:
    """Two metrics of ten methods on a 3-D classifier."""
    network, image = classifier(3, 24 if quick else 48)
    found = vx.explain(network, image, _methods(), TARGET)

    def ours(metric: str) -> Work:
        draws = CHANGES if metric == "infidelity" else NEIGHBORS
        asked = [{"name": metric, "draws": draws}]
        return lambda: evaluate(network, image, found, asked, TARGET, controls=False)

    peers = {
        "captum": _Captum(network, image, BATCH),
        "at once": _Captum(network, image, None),
    }
    rows, total = [], {name: Timing([0.0], [0.0]) for name in ("voxplain", *peers)}
    for metric in ("infidelity", "max_sensitivity"):
        contestants = {"voxplain": ours(metric)}
        contestants |= {name: getattr(peer, metric) for name, peer in peers.items()}
        timings = race(contestants, 1, dict.fromkeys(peers, peers["captum"].warm_up))
        rows.append(_row(f"{metric.replace('_', '-')} of {len(found)} methods", timings))
        total = {name: _sum(total[name], timings[name]) for name in total}
    rows.append(_row("both", total))
    return Table("metrics", HEADER, rows, (_NOTE.format(size=image.shape[-1]),))


_NOTE = (
    "3-D residual classifier, {size}^3; "
    f"{CHANGES} changes of the image for infidelity, {NEIGHBORS} neighbors for max-sensitivity; "
    f"paths of {STEPS} steps, {COPIES} noisy copies. The ten: saliency, input x gradient, guided "
    "backpropagation, deconvolution, integrated gradients from black, the same from black and "
    "white, SmoothGrad, its square, VarGrad, and SmoothGrad of input x gradient. Captum is asked "
    f"method by method, {BATCH} images at a time, which is its fastest here; everything at once "
    "is its default. Changes and neighbors are drawn from the same distributions on both sides; "
    "that the numbers agree where the draws are the same is a test. Infidelity gains from one set "
    "of changes for all maps. Max-sensitivity gains only where methods read the same passes: "
    f"voxplain takes {3 + 2 * STEPS + COPIES} per neighbor, captum "
    f"{4 + 3 * STEPS + 4 * COPIES}."
)


def _methods() -> list[dict[str, object]]:
    def noisy(of: str = "saliency", power: int = 1) -> dict[str, object]:
        return {"name": "smoothgrad", "of": of, "samples": COPIES, "power": power}

    return [
        {"name": "saliency"},
        {"name": "input_x_gradient"},
        {"name": "guided_backprop"},
        {"name": "deconvolution"},
        {"name": "integrated_gradients", "baseline": "minimum", "steps": STEPS},
        {"name": "integrated_gradients_black_white", "steps": STEPS},
        noisy(),
        noisy(power=2),
        {"name": "vargrad", "of": "saliency", "samples": COPIES},
        noisy("input_x_gradient"),
    ]


class _Captum:
    """The same ten, each explained and judged by itself.

    Args:
        network: A classifier.
        image: ``(1, C, *spatial)``.
        batch: Images at a time; None for everything at once.
    """

    def __init__(self, network: nn.Module, image: Tensor, batch: int | None) -> None:
        self.network, self.image, self.batch = network, image, batch
        self.black, self.white = float(image.min()), float(image.max())
        self.range = float(intensity_range(image[0]))
        self.methods = self._methods()

    def infidelity(self, draws: int = CHANGES) -> None:
        """Of all maps, which are given."""
        for _ in self.methods:
            infidelity(
                self.network,
                self._change,
                self.image,
                torch.ones_like(self.image),
                target=TARGET,
                n_perturb_samples=draws,
                max_examples_per_batch=self.batch,
            )

    def max_sensitivity(self, draws: int = NEIGHBORS) -> None:
        """Of all methods."""
        for explain in self.methods.values():
            sensitivity_max(
                explain,
                self.image,
                self._neighbor,
                n_perturb_samples=draws,
                max_examples_per_batch=self.batch,
            )

    def warm_up(self) -> None:
        """One of each, instead of a turn that takes a minute."""
        self.infidelity(1)

    def _change(self, images: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * self.range * torch.randn_like(images)
        return noise, images - noise

    def _neighbor(self, images: Tensor | tuple[Tensor, ...]) -> Tensor:
        image = images[0] if isinstance(images, tuple) else images
        return image + 0.02 * self.range * (torch.rand_like(image) * 2 - 1)

    def _methods(self) -> Mapping[str, Explain]:
        network = self.network
        return {
            "saliency": lambda x: attr.Saliency(network).attribute(_one(x), TARGET, abs=False),
            "input_x_gradient": lambda x: attr.InputXGradient(network).attribute(_one(x), TARGET),
            "guided_backprop": lambda x: attr.GuidedBackprop(network).attribute(_one(x), TARGET),
            "deconvolution": lambda x: attr.Deconvolution(network).attribute(_one(x), TARGET),
            "black": partial(self._path, self.black),
            "black_white": lambda x: (self._path(self.black, x) + self._path(self.white, x)) / 2,
            "smoothgrad": partial(self._noisy, "smoothgrad"),
            "smoothgrad_sq": partial(self._noisy, "smoothgrad_sq"),
            "vargrad": partial(self._noisy, "vargrad"),
            "smoothgrad_input": lambda x: self._tunnel(
                attr.NoiseTunnel(attr.InputXGradient(network)), "smoothgrad", x
            ),
        }

    def _path(self, baseline: float, images: Tensor | tuple[Tensor, ...]) -> Tensor:
        return attr.IntegratedGradients(self.network).attribute(
            _one(images),
            baseline,
            TARGET,
            n_steps=STEPS,
            method="gausslegendre",
            internal_batch_size=self.batch,
        )

    def _noisy(self, kind: str, images: Tensor | tuple[Tensor, ...]) -> Tensor:
        tunnel = attr.NoiseTunnel(attr.Saliency(self.network))
        return self._tunnel(tunnel, kind, images, abs=False)

    def _tunnel(
        self,
        tunnel: attr.NoiseTunnel,
        kind: str,
        images: Tensor | tuple[Tensor, ...],
        **asked: object,
    ) -> Tensor:
        images = _one(images)
        return tunnel.attribute(
            images,
            nt_type=kind,
            nt_samples=COPIES,
            nt_samples_batch_size=None if self.batch is None else max(1, self.batch // len(images)),
            stdevs=0.15 * self.range,
            target=TARGET,
            **asked,
        )


def _one(images: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Captum hands over a tuple first, and a tensor afterwards."""
    return images[0] if isinstance(images, tuple) else images


def _sum(first: Timing, second: Timing) -> Timing:
    return Timing([first.seconds + second.seconds], [first.cpu_seconds + second.cpu_seconds])


def _row(title: str, timings: Mapping[str, Timing]) -> list[str]:
    ours, captum = timings["voxplain"], timings["captum"]
    wall, cpu = captum.times(ours)
    at_once = times(timings["at once"].times(ours)[0])
    return [title, seconds(ours.seconds), seconds(captum.seconds), times(wall), times(cpu), at_once]
