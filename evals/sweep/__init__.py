"""Sweeps: searching for good settings of an agent with Optuna (extra ``sweep``); a trial is a training run.

``space.py`` reads which settings to try, ``trial.py`` trains one trial, ``sweep.py`` runs them as jobs, ``results.py``
writes the table, the plot and the preset.
"""
