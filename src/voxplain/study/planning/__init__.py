"""What a study will do: inputs, tasks, cost and everything that can be wrong beforehand."""
