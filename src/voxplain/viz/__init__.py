"""Drawing one map: figures, overlays, colors and the notebook panel."""
