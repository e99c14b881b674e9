"""What all figures share: geometry and style, names, and which sources are shown."""
