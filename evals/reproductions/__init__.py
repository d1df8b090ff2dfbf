"""Reproductions: training runs whose results the docs state, one command each, and helpers to compare and plot them."""
