"""Reproductions: training runs whose figures are stated in the docs, one command each."""
