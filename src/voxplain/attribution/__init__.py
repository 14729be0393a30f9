"""Attribution maps: explain a network, and declare methods of your own.

Everything that a plug-in with a method needs is here: the bases of methods, the two requests, and
what they are made of (samplers, rules, reducers, masks, fills). Regions are in
:mod:`voxplain.regions`, targets in :mod:`voxplain.targets`.
"""

from __future__ import annotations

from voxplain.attribution.describe.cost import estimate, group
from voxplain.attribution.explanation import explain
from voxplain.attribution.methods.base import (
    AtLayers,
    CoalitionMethod,
    FromLayer,
    MaskMethod,
    OnePassMethod,
    Wrapper,
)
from voxplain.attribution.module import as_module
from voxplain.attribution.prediction import Prediction, predict
from voxplain.attribution.result import Attribution
from voxplain.engine.baselines import Baseline, baseline_image
from voxplain.engine.context import Context
from voxplain.engine.gradients.path_samplers import BlurPath, GuidedPath
from voxplain.engine.gradients.quadrature import Quadrature
from voxplain.engine.gradients.reducers import (
    AlongCurve,
    AlongPath,
    LastMasks,
    MeanGradient,
    MeanValue,
    Reducer,
    TapBatch,
    TimesDifference,
    TimesValue,
)
from voxplain.engine.gradients.refined_paths import (
    DoubledPath,
    LayerPath,
    RefinedLayerPath,
    RefinedPath,
)
from voxplain.engine.gradients.samplers import (
    Original,
    PairedReference,
    PointBatch,
    PointSequence,
    RandomPathPoint,
    Sampler,
    StraightPath,
)
from voxplain.engine.masks import (
    AblationWeights,
    AnyFill,
    Blur,
    CaseFill,
    ChannelsAsMasks,
    ChannelsOff,
    Constant,
    Drop,
    DropOfChannels,
    Fill,
    MaskReducer,
    MaskSampler,
    MaskScores,
    Mean,
    Noise,
    OneRegionOff,
    RandomGrids,
    Reduction,
    RegionDesign,
    ScoreWeights,
    SlidingBox,
    WeightedMean,
    by_region,
)
from voxplain.engine.masks.coalition_designs import AllCoalitions, Bernoulli, ShapleyKernel, Walks
from voxplain.engine.masks.quasi_random_designs import PickFreeze, QuasiLevels, QuasiSwitches
from voxplain.engine.masks.reducers.piecewise import PiecewiseLinear
from voxplain.engine.masks.reducers.sensitivity import Dependence, VarianceShare
from voxplain.engine.masks.reducers.shapley import ExactShapley, WalkMarginals
from voxplain.engine.masks.reducers.surrogates import LocalSurrogate, ShapleyRegression
from voxplain.engine.method import (
    ChannelReduction,
    MapProperties,
    Method,
    Resampling,
    Sign,
    parse_method,
    register,
)
from voxplain.engine.network_layers import Assembly
from voxplain.engine.randomness import GaussianNoise, NoisyCopies
from voxplain.engine.requests import GradientRequest, MaskRequest, Request
from voxplain.engine.rules import (
    Deconvnet,
    DeepLiftRule,
    Excitation,
    Guided,
    Lrp,
    Plain,
    Rule,
    ThroughLayer,
)
from voxplain.engine.stream_io import MethodOutput, StreamInput, StreamResults
from voxplain.engine.taps import INPUT, Tap

__all__ = [
    "INPUT",
    "AblationWeights",
    "AllCoalitions",
    "AlongCurve",
    "AlongPath",
    "AnyFill",
    "Assembly",
    "AtLayers",
    "Attribution",
    "Baseline",
    "Bernoulli",
    "Blur",
    "BlurPath",
    "CaseFill",
    "ChannelReduction",
    "ChannelsAsMasks",
    "ChannelsOff",
    "CoalitionMethod",
    "Constant",
    "Context",
    "Deconvnet",
    "DeepLiftRule",
    "Dependence",
    "DoubledPath",
    "Drop",
    "DropOfChannels",
    "ExactShapley",
    "Excitation",
    "Fill",
    "FromLayer",
    "GaussianNoise",
    "GradientRequest",
    "Guided",
    "GuidedPath",
    "LastMasks",
    "LayerPath",
    "LocalSurrogate",
    "Lrp",
    "MapProperties",
    "MaskMethod",
    "MaskReducer",
    "MaskRequest",
    "MaskSampler",
    "MaskScores",
    "Mean",
    "MeanGradient",
    "MeanValue",
    "Method",
    "MethodOutput",
    "Noise",
    "NoisyCopies",
    "OnePassMethod",
    "OneRegionOff",
    "Original",
    "PairedReference",
    "PickFreeze",
    "PiecewiseLinear",
    "Plain",
    "PointBatch",
    "PointSequence",
    "Prediction",
    "Quadrature",
    "QuasiLevels",
    "QuasiSwitches",
    "RandomGrids",
    "RandomPathPoint",
    "Reducer",
    "Reduction",
    "RefinedLayerPath",
    "RefinedPath",
    "RegionDesign",
    "Request",
    "Resampling",
    "Rule",
    "Sampler",
    "ScoreWeights",
    "ShapleyKernel",
    "ShapleyRegression",
    "Sign",
    "SlidingBox",
    "StraightPath",
    "StreamInput",
    "StreamResults",
    "Tap",
    "TapBatch",
    "ThroughLayer",
    "TimesDifference",
    "TimesValue",
    "VarianceShare",
    "WalkMarginals",
    "Walks",
    "WeightedMean",
    "Wrapper",
    "as_module",
    "baseline_image",
    "by_region",
    "estimate",
    "explain",
    "group",
    "parse_method",
    "predict",
    "register",
]
