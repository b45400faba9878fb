"""Answers and labels → figures with intervals. Needs numpy alone."""
