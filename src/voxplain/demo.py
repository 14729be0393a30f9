"""The demo: a study of a small network that segments the brain template of nilearn."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from voxplain.errors import ConfigError

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
WEIGHTS = "demo_unet3d.safetensors"

STUDY = """\
# A study: images, networks, what to explain, and how. Change it, and run it again with
#   voxplain run {name}
cases:
  - {{id: mni152, image: mni152_t1.nii.gz, channels: [T1]}}
models:
  - name: unet3d
    factory: "voxplain.zoo:unet3d"
    weights: {weights}
    classes: [background, CSF, gray matter, white matter]
    preprocess:
      - {{kind: reorient, axes: RAS}}
      - {{kind: spacing, size: 2.0}}
      - {{kind: crop_foreground, margin: 2}}
      - {{kind: pad_to_multiple, multiple: 4}}
      - {{kind: normalize, mode: minmax}}
target: {{kind: pixelwise, label: 3}}
methods:
  - saliency
  - {{name: integrated_gradients, steps: 12, baseline: blur}}
  - {{name: smoothgrad, of: guided_backprop, samples: 10, power: 2}}
  - {{name: deep_lift, baseline: blur}}
  - {{name: grad_cam, layer: dec1}}
  - name: layer_conductance
    layers: [enc1, bottleneck]
    steps: 12
    baseline: blur
    channels: sum
output: run
"""


def write_demo(folder: Path) -> Path:
    """Writes the study of the demo with its image and weights.

    Args:
        folder: Created if it does not exist.

    Returns:
        The study file.

    Raises:
        ConfigError: If nilearn, which holds the template, is not installed.
    """
    template = template_file()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template, folder / "mni152_t1.nii.gz")
    with as_file(files("voxplain") / "data" / WEIGHTS) as weights:
        shutil.copyfile(weights, folder / WEIGHTS)
    study = folder / "study.yaml"
    study.write_text(STUDY.format(name=study, weights=WEIGHTS), encoding="utf-8")
    return study


def template_file() -> Path:
    """The MNI152 T1 template inside the installed nilearn package; nothing is downloaded.

    Raises:
        ConfigError: If nilearn is not installed, or does not hold the template.
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise ConfigError(
            "the demo needs the brain template of nilearn; install it: pip install voxplain[demo]"
        )
    file = Path(package.origin).parent / TEMPLATE
    if not file.is_file():
        raise ConfigError("the installed nilearn carries no brain template; nilearn 0.14 does")
    return file
