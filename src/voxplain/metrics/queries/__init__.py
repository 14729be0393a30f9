"""Queries to the network that run once for all metrics, and often once for all maps."""
