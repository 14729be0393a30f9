"""The five methods of the INFORM poster, each plain, under SmoothGrad and under its square."""

from __future__ import annotations

import torch
from captum import attr
from torch import Tensor

import voxplain as vx
from benchmarks.harness import Floor, race
from benchmarks.networks import classifier
from benchmarks.page import Table, row
from benchmarks.peers import Captum

HEADER = (
    "maps",
    "voxplain, one call",
    "captum, one by one",
    "captum / voxplain",
    "by CPU time",
    "voxplain / floor",
)
STEPS, SAMPLES = 16, 32
COPIES, COPIES_OF_PATHS, STEPS_UNDER_NOISE = 25, 4, 8


def run(quick: bool = False) -> Table:
    """Backprop, integrated gradients black and black-white, expected gradients, deconvolution."""
    network, images = classifier(2, 32 if quick else 96, batch=8)
    image, references = images[:1], images[1:]
    captum = Captum(network, image, target=1).tuned(STEPS)
    methods = _methods()

    def ours() -> object:
        return vx.explain(network, image, methods, 1, references=references)

    floor = Floor(network, image, lambda output: output[:, 1])
    timings = race(
        {
            "voxplain": ours,
            "captum": lambda: _Captum(captum, references).all(),
            "floor": floor.of(_passes()),
        },
        repeats=1 if quick else 5,
    )
    note = (
        f"2-D residual classifier; paths of {STEPS} steps, {SAMPLES} samples of expected "
        f"gradients, {COPIES} noisy copies; under noise, paths and expected gradients take "
        f"{COPIES_OF_PATHS} copies of {STEPS_UNDER_NOISE} points. voxplain needs {_passes()} "
        f"passes for the {len(methods)} maps, as SmoothGrad and its square share a stream, and so "
        "do black and black-white."
    )
    return Table("poster", HEADER, [row(f"{len(methods)} maps", timings)[:-1]], (note,))


def _methods() -> list[dict[str, object]]:
    path: dict[str, object] = {"name": "integrated_gradients", "baseline": "minimum"}
    black_white: dict[str, object] = {"name": "integrated_gradients_black_white"}
    expected: dict[str, object] = {"name": "expected_gradients"}
    plain = [
        {"name": "saliency"},
        {"name": "deconvolution"},
        {**path, "steps": STEPS},
        {**black_white, "steps": STEPS},
        {**expected, "samples": SAMPLES},
    ]
    inner = [
        ({"name": "saliency"}, COPIES),
        ({"name": "deconvolution"}, COPIES),
        ({**path, "steps": STEPS_UNDER_NOISE}, COPIES_OF_PATHS),
        ({**black_white, "steps": STEPS_UNDER_NOISE}, COPIES_OF_PATHS),
        ({**expected, "samples": STEPS_UNDER_NOISE}, COPIES_OF_PATHS),
    ]
    noisy = [
        {"name": "smoothgrad", "of": of, "samples": samples, "power": power}
        for of, samples in inner
        for power in (1, 2)
    ]
    return [*plain, *noisy]


def _passes() -> int:
    """Of the distinct streams: image, paths from black and from white, references, noise."""
    return 2 + 2 * STEPS + SAMPLES + 2 * COPIES + 3 * COPIES_OF_PATHS * STEPS_UNDER_NOISE


class _Captum:
    """The same maps, each by the call that captum offers."""

    def __init__(self, captum: Captum, references: Tensor) -> None:
        self.captum, self.references = captum, references
        image = captum.images
        self.black = torch.full_like(image, float(image.min()))
        self.white = torch.full_like(image, float(image.max()))
        self.sigma = 0.15 * float(image.max() - image.min())

    def all(self) -> None:
        captum = self.captum
        captum.saliency()
        captum.deconvolution()
        for baseline in (self.black, self.black, self.white):
            captum.integrated_gradients(STEPS, baseline)
        captum.expected_gradients(self.references, SAMPLES)
        for kind in ("smoothgrad", "smoothgrad_sq"):
            self._noisy(kind)
        self._noisy_expected()

    def _noisy(self, kind: str) -> None:
        captum, network = self.captum, self.captum.network
        captum.smoothgrad(attr.Saliency(network), COPIES, self.sigma, kind, abs=False)
        captum.smoothgrad(attr.Deconvolution(network), COPIES, self.sigma, kind)
        path = attr.IntegratedGradients(network)
        for baseline in (self.black, self.black, self.white):
            captum.smoothgrad(
                path,
                COPIES_OF_PATHS,
                self.sigma,
                kind,
                baselines=baseline,
                n_steps=STEPS_UNDER_NOISE,
                method="gausslegendre",
                internal_batch_size=captum.batch,
            )

    def _noisy_expected(self) -> None:
        """Captum's noise tunnel cannot hold its gradient SHAP: a loop that feeds both powers."""
        for _ in range(COPIES_OF_PATHS):
            noisy = self.captum.images + self.sigma * torch.randn_like(self.captum.images)
            copy = Captum(self.captum.network, noisy, self.captum.target, self.captum.batch)
            copy.expected_gradients(self.references, STEPS_UNDER_NOISE)
