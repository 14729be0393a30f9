"""Run folders as a study writes them, with known content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from voxplain.records.manifest import (
    CaseRecord,
    Manifest,
    MapRecord,
    ModelRecord,
    PredictionRecord,
    TaskRecord,
)
from voxplain.records.sidecar import (
    Cost,
    GridFacts,
    LayerFacts,
    ModelFacts,
    Sidecar,
    TargetFacts,
    ValueRange,
)

HASH = "0123456789abcdef" * 4
WORDS = "evidence for white matter, wherever the model predicts it"
MEANINGS = {
    "integrated_gradients": "Adds up the gradient on the straight way from a baseline image.",
    "saliency": "How the score changes when one voxel changes a little.",
    "smoothgrad": "Mean of squared guided gradients over noisy copies of the image.",
    "layer_conductance": "How much of the score flows through each cell of a layer.",
}


class RunWriter:
    """Writes one run folder record by record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, list[Any]] = {
            name: [] for name in ("cases", "models", "predictions", "tasks", "maps")
        }
        for name in ("images", "maps"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def model(self, name: str) -> None:
        record = ModelRecord(name=name, weights_sha256=HASH, parameters=352_000)
        self.records["models"].append(record)

    def nifti(self, file: str, array: np.ndarray, affine: np.ndarray, code: int = 1) -> str:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = array.reshape(*array.shape, *(1,) * (4 - array.ndim))
        volume = volume[0] if len(volume) == 1 else np.moveaxis(volume, 0, -1)
        image = nibabel.Nifti1Image(volume, affine)
        image.set_sform(affine, code)
        image.set_qform(affine, code)
        nibabel.save(image, path)
        return file

    def case(
        self,
        name: str,
        image: np.ndarray,
        affine: np.ndarray,
        *,
        channels: tuple[str, ...] = ("t1",),
        unit: str = "mm",
        reference: np.ndarray | None = None,
        code: int = 1,
    ) -> None:
        file = self.nifti(f"images/{name}_image.nii.gz", image.astype(np.float32), affine, code)
        reference_file = None
        if reference is not None:
            labels = reference.astype(np.uint8)[None]
            reference_file = self.nifti(f"images/{name}_ref.nii.gz", labels, affine, code)
        shape = image.shape[1:]
        record = CaseRecord(
            id=name,
            image_sha256=HASH,
            image=file,
            reference=reference_file,
            shape=shape,
            spacing=tuple(np.linalg.norm(affine[:3, :3], axis=0)[: len(shape)]),
            unit=unit,
            orientation="".join(nibabel.aff2axcodes(affine)[: len(shape)]),
            channels=channels,
        )
        self.records["cases"].append(record)

    def prediction(
        self,
        case: str,
        model: str,
        labels: np.ndarray | None,
        affine: np.ndarray,
        *,
        words: str = WORDS,
        code: int = 1,
        **facts: Any,
    ) -> None:
        file = None
        if labels is not None:
            name = f"images/{case}_{model}_pred.nii.gz"
            file = self.nifti(name, labels.astype(np.uint8)[None], affine, code)
        record = PredictionRecord(
            case=case, model=model, target="1", in_words=words, score=41_234.5, image=file, **facts
        )
        self.records["predictions"].append(record)

    def map(
        self,
        case: str,
        model: str,
        label: str,
        values: np.ndarray,
        affine: np.ndarray,
        *,
        channels: tuple[str, ...] = ("t1",),
        unit: str = "mm",
        sign: str = "signed",
        layer: LayerFacts | None = None,
        words: str = WORDS,
        code: int = 1,
        **more: Any,
    ) -> None:
        suffix = f"-{layer.path}" if layer else ""
        stem = f"maps/{case}/{model}/{case}_label-1_desc-{label}{suffix}_attr"
        self.nifti(f"{stem}.nii.gz", values.astype(np.float32), affine, code)
        if values.ndim == 3:
            np.save(self.folder / f"{stem}.npy", values.astype(np.float32))
        target = TargetFacts(
            kind="pixelwise", in_words=words, parameters={"label": 1}, score=41_234.5
        )
        sidecar = Sidecar(
            method=label,
            label=label,
            meaning=MEANINGS.get(label, "What this method shows."),
            parameters={"name": label, "steps": 32, "baseline": {"kind": "constant", "value": 0}},
            stream=[{"sampler": "straight_path", "rule": "plain"}],
            target=target,
            channels=channels,
            units="score per voxel",
            sign=sign,
            resampling="mass",
            range=value_range(values),
            grid=GridFacts(
                shape=values.shape[1:],
                affine=np.asarray(affine).tolist(),
                spacing=tuple(np.linalg.norm(affine[:3, :3], axis=0)[: values.ndim - 1]),
                unit=unit,
                orientation="RAS",
            ),
            layer=layer,
            model=ModelFacts(
                name=model, weights_sha256=HASH, parameters=352_000, precision="float32"
            ),
            cost=Cost(passes=32, seconds=4.2),
            software={"voxplain": "0.1.0"},
            **more,
        )
        (self.folder / f"{stem}.json").write_text(sidecar.to_json(), encoding="utf-8")
        record = MapRecord(
            case=case,
            model=model,
            target="1",
            label=label,
            method=label,
            layer=layer.path if layer else None,
            file=f"{stem}.nii.gz",
            sidecar=f"{stem}.json",
        )
        self.records["maps"].append(record)

    def task(self, case: str, model: str, methods: list[str], **facts: Any) -> None:
        record = TaskRecord(key=HASH, case=case, model=model, target="1", methods=methods, **facts)
        self.records["tasks"].append(record)

    def finish(self, **facts: Any) -> Path:
        manifest = Manifest(
            software={"python": "3.11", "torch": "2.13.0", "voxplain": "0.1.0"},
            device="cpu",
            seed=0,
            study_sha256=HASH,
            seconds=52.3,
            **self.records,
            **facts,
        )
        text = json.dumps(manifest.model_dump(mode="json"))
        (self.folder / "manifest.json").write_text(text, encoding="utf-8")
        return self.folder


def value_range(values: np.ndarray) -> ValueRange:
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (0.005, 0.995)) if values.size else (0, 0)
    return ValueRange(
        q005=low,
        q995=high,
        minimum=values.min(initial=0),
        maximum=values.max(initial=0),
        sum=values.sum(),
        zeros=float((values == 0).mean()) if values.size else 1,
    )


def head(step: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head-like image, its white matter, and its affine."""
    shape = tuple(int(size / step) for size in (180, 215, 170))
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    radius = np.sqrt(sum((axes[i] / extent) ** 2 for i, extent in enumerate((0.8, 0.9, 0.8))))
    wave = 0.08 * np.sin(9 * axes[0]) * np.cos(8 * axes[1]) * np.cos(7 * axes[2])
    white = radius + wave < 0.6
    image = 60.0 * (radius + wave < 0.85) + 50 * white + 25 * (np.abs(radius - 0.95) < 0.05)
    noise = np.random.default_rng(0).normal(size=shape)
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = [-90, -120, -70]
    return gaussian_filter(image, 0.6) + 2 * gaussian_filter(noise, 0.7), white, affine


def evidence(mask: np.ndarray, seed: int, smooth: float = 1.0) -> np.ndarray:
    """A signed map around the border of a mask."""
    noise = np.random.default_rng(seed).normal(size=mask.shape)
    edge = np.abs(gaussian_filter(mask.astype(float), 1.5) - 0.5) < 0.35
    return 0.02 * gaussian_filter(noise, smooth) * gaussian_filter(edge.astype(float), 1)


def head_run(folder: Path, make: Callable[[], Any] = head) -> Path:
    """Two 3-D cases: one with four maps, one with a map, a failure and no predicted labels."""
    image, white, affine = make()
    run = RunWriter(folder)
    run.model("unet")
    for case in ("p01", "p02"):
        reference = gaussian_filter(white.astype(float), 1.2) > 0.5 if case == "p01" else None
        run.case(case, image[None], affine, reference=reference)
        volumes = {"background": 4100.0, "white matter": 512.0, "grey matter": 684.0}
        labels = white if case == "p01" else None
        run.prediction(case, "unet", labels, affine, volumes=volumes)
        run.task(case, "unet", ["integrated_gradients"], status="done", passes=32)
        values = evidence(white, 0)[None]
        run.map(case, "unet", "integrated_gradients", values, affine, completeness=0.0012)
        if case == "p02":
            continue
        run.map(case, "unet", "saliency", evidence(white, 1)[None], affine)
        squared = evidence(white, 5)[None] ** 2
        run.map(case, "unet", "smoothgrad", squared, affine, sign="absolute")
        coarse = evidence(white, 7, 3.0)[::4, ::4, ::4][None] * 8
        layer = LayerFacts(
            path="bottleneck", channels=64, shape=coarse.shape[1:], stride=(4,) * 3, start=(0,) * 3
        )
        grid = affine @ np.diag([4, 4, 4, 1])
        run.map(case, "unet", "layer_conductance", coarse, grid, layer=layer)
    reason = "Out of memory with one window in a batch; a smaller window would work."
    run.task("p02", "unet", ["occlusion"], status="failed", reason=reason)
    return run.finish(warnings=["float16 disagreed with float32; float32 was used."])


def retina(size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A retina-like color picture ``(3, rows, columns)`` in 0 to 255 and its vessels."""
    rows, columns = np.mgrid[:size, : size + 10] / size
    disc = (rows - 0.5) ** 2 + (columns - 0.55) ** 2 < 0.2
    vessels = np.abs(rows - 0.5 - 0.2 * np.sin(5 * columns)) < 0.018
    vessels |= np.abs(columns - 0.55 - 0.15 * np.cos(6 * rows)) < 0.014
    vessels &= disc
    base = np.stack([190.0 - 70 * vessels, 110 - 60 * vessels, 60 - 20 * vessels])
    return np.where(disc, base, 4.0), vessels


UPRIGHT = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def picture_run(folder: Path, make: Callable[[], Any] = retina) -> Path:
    """One color picture with a three-channel map and a one-channel map."""
    picture, vessels = make()
    run = RunWriter(folder)
    run.model("wnet")
    colors = ("red", "green", "blue")
    words = "evidence for vessel, wherever the model predicts it"
    run.case("r01", picture, UPRIGHT, channels=colors, unit="pixel", reference=vessels, code=2)
    shifted = np.roll(vessels, 1, axis=0)
    facts = {"volumes": {"background": 8000.0, "vessel": 900.0}, "volume_unit": "pixels"}
    run.prediction("r01", "wnet", shifted, UPRIGHT, words=words, code=2, **facts)
    values = np.stack([scale * evidence(vessels, 3) for scale in (0.3, 1.0, -0.2)])
    plain = {"unit": "pixel", "code": 2, "words": words}
    run.map("r01", "wnet", "integrated_gradients", values, UPRIGHT, channels=colors, **plain)
    run.map("r01", "wnet", "saliency", values[1:2], UPRIGHT, channels=("green",), **plain)
    return run.finish()
