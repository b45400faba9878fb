"""Honest measuring: metrics with intervals, published figures beside them, results files, pictures and reports."""
