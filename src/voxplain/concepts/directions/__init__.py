"""Directions in the channel space of layers: of concepts, of scores, and sparse ones."""
