"""Viewers of the report: 2-D pictures and 3-D volumes."""
