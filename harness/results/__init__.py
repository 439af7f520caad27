"""What artefacts say: the matrix, agreement, comparability, verdicts."""
