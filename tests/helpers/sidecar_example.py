"""A complete sidecar for tests that write maps."""

from typing import Literal

from voxplain.records.sidecar import Cost, GridFacts, ModelFacts, Sidecar, TargetFacts, ValueRange


def sidecar(sign: Literal["signed", "absolute", "positive"] = "signed") -> Sidecar:
    return Sidecar(
        method="integrated_gradients",
        label="integrated_gradients",
        meaning="Share of each voxel in the score.",
        parameters={"steps": 32},
        stream=[{"sampler": "straight_path"}],
        target=TargetFacts(
            kind="pixelwise", in_words="class 1", parameters={"label": 1}, score=2.5
        ),
        channels=("channel 0",),
        units="score per voxel",
        sign=sign,
        resampling="mass",
        range=ValueRange(q005=-1, q995=1, minimum=-2, maximum=2, sum=0, zeros=0),
        grid=GridFacts(
            shape=(6, 7, 8), affine=[[1.0]], spacing=(1, 1, 1), unit="mm", orientation="RAS"
        ),
        model=ModelFacts(name="unet", weights_sha256="0", parameters=1, precision="float32"),
        cost=Cost(passes=32, seconds=1.0),
        software={"voxplain": "0"},
    )
