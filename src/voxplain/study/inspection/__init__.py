"""Questions to run directories: how far a run is, what differs, what is left over."""
