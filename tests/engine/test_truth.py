"""Bins of probabilities and the gaps in them."""

from __future__ import annotations

import torch

from voxplain.engine.truth import bins_of, calibration_gaps


def test_a_bin_holds_its_upper_end() -> None:
    """Zero belongs to the first bin, and equal values to one bin."""
    chances = torch.tensor([0.0, 0.1, 0.25, 0.26, 0.5, 0.75, 0.76, 1.0], dtype=torch.float64)
    assert bins_of(chances, 4, "equal_width").tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert bins_of(chances, 4, "equal_mass").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    tied = torch.tensor([0.2, 0.2, 0.2, 0.9], dtype=torch.float64)
    assert len(set(bins_of(tied, 4, "equal_mass")[:3].tolist())) == 1


def test_the_gap_is_that_of_the_bin() -> None:
    chances = torch.tensor([0.2, 0.3, 0.8, 0.9], dtype=torch.float64)
    there = torch.tensor([False, True, True, True])
    gaps, curve = calibration_gaps(chances, there, 2)
    assert torch.allclose(gaps, torch.tensor([0.25, 0.25, 0.15, 0.15], dtype=torch.float64))
    assert [round(share, 9) for _, share in curve] == [0.5, 1.0]
