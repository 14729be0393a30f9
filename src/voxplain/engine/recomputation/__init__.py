"""Recomputation: parts of a network run again in the backward pass instead of being kept."""
