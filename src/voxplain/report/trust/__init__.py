"""The section of the report on trust: scores, verdicts, tables and plots."""
