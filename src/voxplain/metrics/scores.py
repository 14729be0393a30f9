"""The table of scores, which lies with the other files of a run."""

from voxplain.io.scores import Score, Scores

__all__ = ["Score", "Scores"]
