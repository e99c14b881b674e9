"""What was measured: complete runs, their tables and matrices, and the lines that a study rests on."""
