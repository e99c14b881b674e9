"""Measure how many keys a softmax attention row needs: source -> selector x windows -> measures -> records."""
