"""The window rules of theory.md section 1, one file each."""
