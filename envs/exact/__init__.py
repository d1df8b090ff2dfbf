"""Exact models of games, built from their rules: transition tables, sequence forms and normal forms.

Solving these models (dynamic programming, best responses, equilibria) does not belong here.
"""
