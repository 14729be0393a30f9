"""One pass through the network, whole or by windows."""
