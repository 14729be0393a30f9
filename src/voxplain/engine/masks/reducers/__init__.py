"""Reducers of masked scores to maps."""
