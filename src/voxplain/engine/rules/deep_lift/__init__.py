"""DeepLIFT: multipliers from the differences between image and reference."""
