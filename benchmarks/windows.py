"""Sliding windows against the whole volume: the time per window beyond its share of voxels."""

from __future__ import annotations

import voxplain as vx
from benchmarks.harness import race
from benchmarks.networks import PIXELWISE, segmenter
from benchmarks.page import Table, seconds, times

HEADER = (
    "windows",
    "voxels seen / voxels",
    "windows in one call of the network",
    "time",
    "time / whole",
    "time per voxel seen / whole",
)


def run(quick: bool = False) -> Table:
    """Saliency of a volume whole, and in windows of several sizes."""
    size = 16 if quick else 64
    network, image, _ = segmenter(size)
    models = {"whole": vx.Model(network)}
    for side, overlap in ((size, 0.0), (size // 2, 0.0), (size // 2, 0.5), (size // 4, 0.0)):
        for batch in (1, 4):
            window = {"size": side, "overlap": overlap, "batch": batch}
            models[f"{side}/{overlap}/{batch}"] = vx.Model(network, window=window)
    timings = race(
        {
            name: lambda model=model: vx.explain(model, image, "saliency", PIXELWISE)
            for name, model in models.items()
        },
        repeats=1 if quick else 5,
    )
    whole = timings["whole"]
    rows = [["whole", "1.00", "", seconds(whole.seconds), "1.00", "1.00"]]
    for name, model in models.items():
        layout = model.layout(image.shape[2:])
        if layout is None or model.window is None:
            continue
        ratio = timings[name].times(whole)[1]
        rows.append(
            [
                f"{len(layout)} of {layout.size[0]}^3, overlap {model.window.overlap}",
                times(layout.redundancy),
                str(model.window.batch),
                seconds(timings[name].seconds),
                times(ratio),
                times(ratio / layout.redundancy),
            ]
        )
    note = f"Saliency of a {size}^3 volume, U-Net of widths 8, 16, 32; ratios by CPU time."
    return Table("windows", HEADER, rows, (note,))
