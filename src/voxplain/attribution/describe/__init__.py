"""Descriptions of methods: cards, parameters, families and cost."""
