"""Draws four maps while the weights of the demo network are randomized, for the docs.

Usage: `python scripts/picture_randomization.py`. Takes some minutes; needs nilearn, which carries
the brain template. With `--metrics` the maps of every step are scored as well, which takes the
forwards of each metric for every network and map; the scores of the trained and of the random
networks are printed. A run whose study has a `randomization` section shows the same in its
report.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from voxplain.attribution import explain
from voxplain.demo import write_demo
from voxplain.engine.context import Context
from voxplain.metrics import MetricContext, parse_metric
from voxplain.metrics.randomization import Cascade, recorded
from voxplain.records.cascade_table import write_steps
from voxplain.records.cascades import (
    RandomizationRecord,
    read_pictures,
    read_randomizations,
    scores_along,
    write_randomization,
)
from voxplain.report.trust.cascade_strip import cascade_strip
from voxplain.study import Study
from voxplain.study.planning.images import read_case
from voxplain.study.planning.networks import NetworkSource
from voxplain.viz.figures import png

FILE = Path(__file__).parents[1] / "docs" / "images" / "randomization.png"
METHODS = [
    "saliency",
    "input_x_gradient",
    "guided_backprop",
    {"name": "grad_cam", "layer": "dec1"},
]


def main() -> None:
    """Runs the cascade, or takes one that a run has kept, and writes its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run directory that holds a cascade")
    parser.add_argument("--keep", type=Path, help="where to keep the curves and planes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--metrics", nargs="*", default=[], help="score every step with these")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        run = given.run or given.keep or Path(folder) / "run"
        if given.run is None:
            cascade_of_the_demo(Path(folder), run, given.seeds, given.metrics)
        for record in read_randomizations(run):
            draw(run, record)
            say(record)


def cascade_of_the_demo(folder: Path, run: Path, seeds: int, metrics: Sequence[str]) -> None:
    """Randomizes the demo network stage by stage, and writes the record of its maps."""
    study = Study.load(write_demo(folder))
    loaded = NetworkSource.of(study.models[0], study, trust=False).load()
    image = loaded.prepare(read_case(study.expanded_cases()[0]))
    target = study.all_targets[0]
    maps = explain(loaded.model, image, METHODS, target)
    context = Context.open(loaded.model, image)
    metric_context = MetricContext.open(context, context.bind(target), maps)
    parsed = tuple(map(parse_metric, metrics))
    query = Cascade(seeds=seeds, pictures=True, metrics=parsed)
    steps = metric_context.run_query(query)
    case = str(study.expanded_cases()[0].id)
    record, pictures = recorded(metric_context, steps, query.order, case, parsed)
    write_randomization(run, record, pictures)
    write_steps(run)


def draw(run: Path, record: RandomizationRecord) -> None:
    """Writes the strip with a palette of its own, which is a third of the size."""
    picture = Image.open(io.BytesIO(png(cascade_strip(record, read_pictures(run, record)))))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(FILE, optimize=True)
    print(FILE, FILE.stat().st_size)


def say(record: RandomizationRecord) -> None:
    """Prints the scores of the trained and of the random networks' maps."""
    for metric in record.metrics:
        for part in record.maps:
            means = scores_along(part, metric.key).mean(axis=0)
            print(f"{metric.key}: {part.method} {means[0]:.3f} trained, {means[-1]:.3f} random")


if __name__ == "__main__":
    main()
