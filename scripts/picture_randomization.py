"""Draws four maps of the demo network while its weights are randomized, for the docs.

Usage: `python scripts/picture_randomization.py`. Takes some minutes; needs nilearn, which carries
the brain template. With `--metrics` the maps of every step are scored as well, which takes as many
forwards as each metric needs for every network and map, and the scores for the trained and for the
random networks are printed. The report of a run whose study has a `randomization` section shows
the same figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from PIL import Image

from voxplain import Study
from voxplain.demo import write_demo
from voxplain.records.cascades import (
    RandomizationRecord,
    read_pictures,
    read_randomizations,
    scores_along,
)
from voxplain.report.trust.cascade_strip import strip_picture

FILE = Path(__file__).parents[1] / "docs" / "images" / "randomization.png"
METHODS = [
    "saliency",
    "input_x_gradient",
    "guided_backprop",
    {"name": "grad_cam", "layer": "dec1"},
]


def main() -> None:
    """Runs the study of the demo with a cascade, or reads a run, and draws its cascades."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder with a cascade to draw")
    parser.add_argument("--keep", type=Path, help="where to keep the run of the demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--metrics", nargs="*", default=[], help="metrics that score every step")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        run = arguments.run or arguments.keep or Path(folder) / "run"
        if arguments.run is None:
            randomize_demo(Path(folder), run, arguments.seeds, arguments.metrics)
        for record in read_randomizations(run):
            draw(run, record, arguments.output)
            print_scores(record)


def randomize_demo(folder: Path, run: Path, seeds: int, metrics: Sequence[str]) -> None:
    """Runs the study of the demo with a cascade of randomization.

    Args:
        folder: Where the study file and its image are written.
        run: The run folder.
        seeds: Repeats with other random weights.
        metrics: Names of metrics that score the maps of every step.
    """
    file = write_demo(folder)
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings["methods"] = METHODS
    settings["randomization"] = {"seeds": seeds, "metrics": list(metrics)}
    settings["output"] = str(run.resolve())
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    Study.load(file).run()


def draw(run: Path, record: RandomizationRecord, output: Path) -> None:
    """Writes the figure of a cascade with a palette, which takes a third of the bytes."""
    figure = strip_picture(record, read_pictures(run, record))
    figure.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)
    print(output, output.stat().st_size)


def print_scores(record: RandomizationRecord) -> None:
    """Prints the scores of the maps of the trained and of the random networks."""
    for metric in record.metrics:
        for randomized in record.maps:
            means = scores_along(randomized, metric.key).mean(axis=0)
            values = f"{means[0]:.3f} trained, {means[-1]:.3f} random"
            print(f"{metric.key}: {randomized.method} {values}")


if __name__ == "__main__":
    main()
