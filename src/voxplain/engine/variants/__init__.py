"""Variants of an image and of a network: small changes, and networks that drop units."""
