"""What the files of a run say: manifest, sidecars, scores, cascades and names."""
