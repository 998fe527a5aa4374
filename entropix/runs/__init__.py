"""What survives of a run: its folder, checkpoints, rows; and the loop that takes it to its end."""
