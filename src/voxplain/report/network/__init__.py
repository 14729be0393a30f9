"""The page of a network: what was found inside of it, over all cases."""
