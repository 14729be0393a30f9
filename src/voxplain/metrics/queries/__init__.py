"""Queries: what is asked of the network once for all maps."""
