"""What captum is asked, with the same quadrature, baseline and score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from captum import attr
from torch import Tensor, nn

from benchmarks.harness import fastest


@dataclass(frozen=True)
class Captum:
    """Captum on one module and one batch of images.

    Attributes:
        network: Gives one score per image, or one per class.
        images: ``(B, C, *spatial)``.
        target: The class, for networks with several scores.
        batch: Captum's ``internal_batch_size``; None sends all steps at once.
    """

    network: nn.Module
    images: Tensor
    target: int | None = None
    batch: int | None = None

    def tuned(self, steps: int) -> Captum:
        """With the batch size that is fastest for captum here."""
        count = len(self.images)
        sizes = [size for size in (2, 4, 8, 16, 32) if count <= size < steps * count]

        def path(size: int) -> Tensor:
            return self._with_batch(size).integrated_gradients(steps)

        return self._with_batch(fastest(sizes, path))

    def _with_batch(self, batch: int | None) -> Captum:
        return Captum(self.network, self.images, self.target, batch)

    def layer(self, path: str) -> nn.Module:
        """The module at a path of the network under study."""
        return getattr(self.network, "network", self.network).get_submodule(path)

    def saliency(self) -> Tensor:
        return attr.Saliency(self.network).attribute(self.images, self.target, abs=False)

    def guided_backprop(self) -> Tensor:
        return attr.GuidedBackprop(self.network).attribute(self.images, self.target)

    def deconvolution(self) -> Tensor:
        return attr.Deconvolution(self.network).attribute(self.images, self.target)

    def deep_lift(self) -> Tensor:
        return attr.DeepLift(self.network).attribute(self.images, target=self.target)

    def integrated_gradients(self, steps: int, baseline: float | Tensor = 0.0) -> Tensor:
        return self._path(steps, baseline, delta=False)

    def integrated_gradients_with_delta(self, steps: int) -> tuple[Tensor, Tensor]:
        """With the convergence delta, which costs captum two more forwards."""
        return self._path(steps, 0.0, delta=True)

    def _path(self, steps: int, baseline: float | Tensor, delta: bool) -> Any:
        return attr.IntegratedGradients(self.network).attribute(
            self.images,
            baseline,
            self.target,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=self.batch,
            return_convergence_delta=delta,
        )

    def expected_gradients(self, references: Tensor, samples: int) -> Tensor:
        return attr.GradientShap(self.network).attribute(
            self.images, references, n_samples=samples, stdevs=0.0, target=self.target
        )

    def smoothgrad(
        self,
        inner: attr.GradientAttribution,
        samples: int,
        sigma: float,
        kind: str,
        **asked: object,
    ) -> Tensor:
        """Captum's noise tunnel around one of its methods, a few noisy copies at a time."""
        return attr.NoiseTunnel(inner).attribute(
            self.images,
            nt_type=kind,
            nt_samples=samples,
            nt_samples_batch_size=max(1, (self.batch or samples) // len(self.images)),
            stdevs=sigma,
            target=self.target,
            **asked,
        )

    def layer_conductance(self, path: str, steps: int) -> Tensor:
        return attr.LayerConductance(self.network, self.layer(path)).attribute(
            self.images,
            0.0,
            self.target,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=self.batch,
        )

    def internal_influence(self, path: str, steps: int) -> Tensor:
        return attr.InternalInfluence(self.network, self.layer(path)).attribute(
            self.images,
            0.0,
            self.target,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=self.batch,
        )

    def layer_gradient_x_activation(self, path: str) -> Tensor:
        with torch.enable_grad():
            return attr.LayerGradientXActivation(self.network, self.layer(path)).attribute(
                self.images, self.target
            )
