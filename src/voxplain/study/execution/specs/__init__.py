"""Tasks of a study as data that travels to the process that does them, and what comes back."""
