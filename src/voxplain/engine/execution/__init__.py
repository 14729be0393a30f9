"""Sessions: streams of one or several networks, run to maps."""
