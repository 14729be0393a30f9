"""Directions that are found without concepts: parts of activations, and groups of units."""
