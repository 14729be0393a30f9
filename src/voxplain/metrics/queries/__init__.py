"""Queries: what is asked of the network once, for all metrics and often for all maps."""
