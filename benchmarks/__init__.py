"""Side-by-side measurements: voxplain, its peer, and the floor that no library can go below."""
