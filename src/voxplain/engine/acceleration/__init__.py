"""Exact accelerations, each with an off switch."""
