"""Concepts: what units detect, how concepts lead to others, and what follows for the answer."""
