"""DeepLIFT: multipliers by finite differences."""
