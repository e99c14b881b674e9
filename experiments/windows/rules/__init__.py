"""The window rules (docs/theory.md, section 1), one file each."""
