"""Trails: paths of links from the image to the answer, each validated by intervention."""
