"""Infidelity and max-sensitivity of ten methods on one volume: together, and one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from captum import attr
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import voxplain as vx
from benchmarks.harness import Floor, Forwards, Timing, Work, race
from benchmarks.networks import classifier
from benchmarks.page import Table, seconds, times
from voxplain.engine.baselines import intensity_range
from voxplain.metrics import evaluate

HEADER = (
    "what",
    "voxplain, all together",
    "captum, one by one",
    "captum / voxplain",
    "by CPU time",
    "voxplain / floor",
    "captum with everything at once / voxplain",
)
TARGET, CHANGES, NEIGHBORS = 1, 64, 8
STEPS, COPIES = 16, 25
PASSES, PASSES_WITH_PATHS = 3 + COPIES, 3 + COPIES + 2 * STEPS
"""Of voxplain per neighbor."""
BATCH = 8
"""Fastest for captum among 1, 8 and everything at once, for each of its methods."""

Explain = Callable[[Tensor], Tensor]

BACKWARD = ("saliency", "input_x_gradient", "guided_backprop", "deconvolution")
NOISY = ("smoothgrad", "smoothgrad_sq", "vargrad")
PATHS = ("black", "black_white")
TEN = (*BACKWARD, *(f"{kind} {of}" for kind in NOISY for of in BACKWARD[:2]))
TEN_WITH_PATHS = (*BACKWARD, *PATHS, *(f"{kind} saliency" for kind in NOISY), TEN[5])


def run(quick: bool = False) -> Table:
    """Two metrics of ten methods on a 3-D classifier, and one of ten with paths among them."""
    network, image = classifier(3, 24 if quick else 48)
    judges = {
        "voxplain": _Voxplain(network, image, TEN),
        "captum": _Captum(network, image, TEN, BATCH),
        "at once": _Captum(network, image, TEN, None),
    }
    gradients = Floor(network, image, lambda output: output[:, TARGET])
    floors = {
        "infidelity": Forwards(network, image).of(CHANGES),
        "max_sensitivity": gradients.of(NEIGHBORS * PASSES),
    }
    rows, total = [], {name: Timing([0.0], [0.0]) for name in (*judges, "floor")}
    for metric, floor in floors.items():
        timings = _race(judges, metric, floor)
        rows.append(_row(f"{metric.replace('_', '-')} of ten methods", timings))
        total = {name: _sum(total[name], timings[name]) for name in total}
    rows.append(_row("both", total))
    judges = {
        "voxplain": _Voxplain(network, image, TEN_WITH_PATHS),
        "captum": _Captum(network, image, TEN_WITH_PATHS, BATCH),
    }
    title = "max-sensitivity of ten methods, two of them with paths"
    floor = gradients.of(NEIGHBORS * PASSES_WITH_PATHS)
    rows.append(_row(title, _race(judges, "max_sensitivity", floor)))
    return Table("metrics", HEADER, rows, (_NOTE.format(size=image.shape[-1]),))


def _race(judges: Mapping[str, _Voxplain | _Captum], metric: str, floor: Work) -> dict[str, Timing]:
    """One turn each, since those of captum take a minute."""
    works: dict[str, Work] = {
        name: getattr(evaluator, metric) for name, evaluator in judges.items()
    }
    warm_up = {name: evaluator.warm_up for name, evaluator in judges.items()}
    return race({**works, "floor": floor}, 1, warm_up)


_NOTE = (
    "3-D residual classifier, {size}^3; "
    f"{CHANGES} changes of the image for infidelity, {NEIGHBORS} neighbors for max-sensitivity. "
    "The ten: saliency, input x gradient, guided backpropagation, deconvolution; SmoothGrad, its "
    f"square and VarGrad ({COPIES} copies) of the first two. With paths: the four, integrated "
    f"gradients from black and from black and white ({STEPS} steps), the three of saliency and "
    f"SmoothGrad of input x gradient. Captum is called method by method, {BATCH} images at a time, "
    "which is its fastest here; everything at once is its default. Changes and neighbors are "
    "drawn from the same distributions on both sides; that the numbers agree where the draws are "
    "the same is a test. Infidelity gains from one set of changes for all maps. Max-sensitivity "
    "gains only where methods read the same passes: per neighbor voxplain takes "
    f"{PASSES} and captum {4 + 6 * COPIES}, with paths {PASSES_WITH_PATHS} and "
    f"{4 + 4 * COPIES + 3 * STEPS}. The floor is the changes through the bare network, and as many "
    "forwards and backwards as voxplain takes."
)


class _Voxplain:
    """Ten methods, explained and judged together."""

    def __init__(self, network: nn.Module, image: Tensor, methods: Sequence[str]) -> None:
        self.network, self.image = network, image
        asked = [_in_words(method) for method in methods]
        self.found = vx.explain(network, image, asked, TARGET)

    def infidelity(self, draws: int = CHANGES) -> None:
        self._judge("infidelity", draws)

    def max_sensitivity(self, draws: int = NEIGHBORS) -> None:
        self._judge("max_sensitivity", draws)

    def warm_up(self) -> None:
        self.infidelity(2)

    def _judge(self, name: str, draws: int) -> None:
        metric = {"name": name, "draws": draws}
        evaluate(self.network, self.image, self.found, [metric], TARGET, controls=False)


def _in_words(method: str) -> dict[str, object]:
    """A method as voxplain is asked for it."""
    kind, _, of = method.partition(" ")
    if kind in NOISY:
        name, power = ("vargrad", {}) if kind == "vargrad" else ("smoothgrad", _POWERS[kind])
        return {"name": name, "of": of, "samples": COPIES, **power}
    paths: dict[str, dict[str, object]] = {
        "black": {"name": "integrated_gradients", "baseline": "minimum", "steps": STEPS},
        "black_white": {"name": "integrated_gradients_black_white", "steps": STEPS},
    }
    return paths.get(method, {"name": method})


_POWERS = {"smoothgrad": {"power": 1}, "smoothgrad_sq": {"power": 2}}


class _Captum:
    """The same, each explained and judged by itself.

    Args:
        network: A classifier.
        image: ``(1, C, *spatial)``.
        methods: Which.
        batch: Images at a time; None for everything at once.
    """

    def __init__(
        self, network: nn.Module, image: Tensor, methods: Sequence[str], batch: int | None
    ) -> None:
        self.network, self.image, self.batch = network, image, batch
        self.methods = methods
        self.black, self.white = float(image.min()), float(image.max())
        self.range = float(intensity_range(image[0]))

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
        for method in self.methods:
            sensitivity_max(
                partial(self._explain, method),
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

    def _explain(self, method: str, images: Tensor | tuple[Tensor, ...]) -> Tensor:
        # Captum hands over a tuple first, and a tensor afterwards.
        x = images[0] if isinstance(images, tuple) else images
        kind, _, of = method.partition(" ")
        if kind in NOISY:
            return self._noisy(kind, of, x)
        if method == "black":
            return self._path(self.black, x)
        if method == "black_white":
            return (self._path(self.black, x) + self._path(self.white, x)) / 2
        return _PEERS[method](self.network).attribute(x, target=TARGET, **_SIGNED.get(method, {}))

    def _path(self, baseline: float, images: Tensor) -> Tensor:
        return attr.IntegratedGradients(self.network).attribute(
            images,
            baseline,
            TARGET,
            n_steps=STEPS,
            method="gausslegendre",
            internal_batch_size=self.batch,
        )

    def _noisy(self, kind: str, of: str, images: Tensor) -> Tensor:
        return attr.NoiseTunnel(_PEERS[of](self.network)).attribute(
            images,
            nt_type=kind,
            nt_samples=COPIES,
            nt_samples_batch_size=None if self.batch is None else max(1, self.batch // len(images)),
            stdevs=0.15 * self.range,
            target=TARGET,
            **_SIGNED.get(of, {}),
        )


_PEERS: dict[str, Callable[[nn.Module], attr.GradientAttribution]] = {
    "saliency": attr.Saliency,
    "input_x_gradient": attr.InputXGradient,
    "guided_backprop": attr.GuidedBackprop,
    "deconvolution": attr.Deconvolution,
}
_SIGNED = {"saliency": {"abs": False}}


def _sum(first: Timing, second: Timing) -> Timing:
    return Timing([first.seconds + second.seconds], [first.cpu_seconds + second.cpu_seconds])


def _row(title: str, timings: Mapping[str, Timing]) -> list[str]:
    ours, captum = timings["voxplain"], timings["captum"]
    wall, cpu = captum.times(ours)
    at_once = times(timings["at once"].times(ours)[0]) if "at once" in timings else ""
    above = times(ours.times(timings["floor"])[1])
    measured = [seconds(ours.seconds), seconds(captum.seconds), times(wall), times(cpu), above]
    return [title, *measured, at_once]
