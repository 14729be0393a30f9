"""Objectives: what an image is synthesized to drive, one number per image, maximized."""
