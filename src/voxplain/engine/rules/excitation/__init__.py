"""Excitation backpropagation."""
