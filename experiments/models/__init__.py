"""Real models: where a checkpoint lies, how it is loaded, and how its attention is watched."""
