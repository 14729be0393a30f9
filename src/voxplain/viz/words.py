"""Numbers, names and parameter values as text for readers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2) -> str:
    """A number with that many significant digits: ``1,200``, ``0.034``, ``4.1 × 10⁻⁷``."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, digits - 1 - exponent)
    exponent = math.floor(math.log10(abs(rounded))) if rounded else exponent
    if exponent >= 7 or exponent < -3:
        mantissa = f"{rounded / 10**exponent:.{digits - 1}f}"
        return f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")


def decimals(values: Iterable[float], least: int = 2, digits: int = 1) -> int:
    """The number of decimals with which values can be told apart.

    Args:
        values: Those that will stand side by side; what is not finite is ignored.
        least: Decimals at least.
        digits: Significant digits of the range of the values that the decimals show.
    """
    finite = [value for value in values if math.isfinite(value)]
    span = max(finite, default=0.0) - min(finite, default=0.0)
    span = span or max(map(abs, finite), default=0.0)
    return least if span == 0 else max(least, digits - 1 - math.floor(math.log10(span)))


def fixed(value: float, places: int = 2) -> str:
    """A number with that many decimals (``0.02``, ``−1.50``); a very large one as by `number`."""
    if not math.isfinite(value) or abs(value) >= 1e6 or places > 5:
        return number(value)
    text = f"{value:,.{0 if abs(value) >= 1000 else places}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def coordinate(millimeters: float) -> str:
    """A coordinate with at most one decimal and a true minus sign."""
    text = f"{millimeters:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text.replace("-", "−")


def percent(share: float, digits: int = 2) -> str:
    """A share of one as a percentage; ``not defined`` for NaN."""
    if math.isnan(share):
        return "not defined"
    return f"{number(100 * share, digits)} %"


def duration(seconds: float) -> str:
    """Seconds as ``12 s``, ``3 min 20 s`` or ``1 h 5 min``."""
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def sizes(values: tuple[float, ...], unit: str = "") -> str:
    """Sizes as ``192 × 233 × 189``, with a unit where there is one."""
    text = " × ".join(f"{value:g}" if value == int(value) else f"{value:.3g}" for value in values)
    return f"{text} {unit}".strip()


_SPELLED = {
    "deep lift": "DeepLIFT",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "shap": "SHAP",
    "backprop": "backpropagation",
    "plus plus": "++",
    "hires cam": "HiResCAM",
    "layer cam": "LayerCAM",
    "eigen cam": "Eigen-CAM",
    "x grad cam": "XGrad-CAM",
    "score cam": "Score-CAM",
    "ablation cam": "Ablation-CAM",
    "mc rise": "MC-RISE",
    "rise": "RISE",
    "lime": "LIME",
    "lrp": "LRP",
    "hsic": "HSIC",
    "sobol": "Sobol",
    "shapley": "Shapley",
    "xrai": "XRAI",
    "grad cam": "Grad-CAM",
    "full grad": "FullGrad",
    "x": "×",
    "morf lerf": "MoRF-LeRF",
    "roc auc": "ROC-AUC",
    "auprc": "AUPRC",
    "iou": "IoU",
    "irof": "IROF",
    "road": "ROAD",
    "dice": "Dice",
    "lipschitz": "Lipschitz",
}


def title(name: str) -> str:
    """A registry name as a heading: ``layer_deep_lift`` is ``Layer DeepLIFT``."""
    text = name.replace("_", " ").strip()
    if re.fullmatch(r"[a-z0-9_]+", name):
        for plain, spelled in _SPELLED.items():
            text = re.sub(rf"(?<!\S){re.escape(plain)}(?!\S)", spelled, text)
    text = text.replace("CAM ++", "CAM++")
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """The text with a capital first letter and no full stop."""
    text = text.strip().removesuffix(".")
    return text[:1].upper() + text[1:]


def setting(value: Any) -> str:
    """A parameter value as text; mappings and lists may be nested."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value) or "none"
    return str(value)
