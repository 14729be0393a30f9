"""The reliability panel beside a synthesized image: when it may be believed."""
