"""Gradient streams: samplers of points, quadrature and reducers."""
