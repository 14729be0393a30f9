"""Networks under study: calls, windows, precision, layers, geometry and loading."""
