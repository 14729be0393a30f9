"""voxplain: what a medical-image network looked at, and how far that answer can be trusted."""

__version__ = "0.1.0"
