"""Everything that is measured about a row, for all windows at once."""
