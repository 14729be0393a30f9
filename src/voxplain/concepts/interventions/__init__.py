"""Interventions: what becomes of the answer when units or image regions are replaced."""
