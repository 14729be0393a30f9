"""Synthesis: images that drive units of a network, by optimization."""
