"""One command and its jobs: how they are composed, launched, watched and told of, and what earlier ones came to."""
