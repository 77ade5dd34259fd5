"""What the database alone does with the same work, row by row: the measure of everything else."""
