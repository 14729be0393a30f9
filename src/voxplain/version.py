"""The version of voxplain."""

__version__ = "0.1.0"
