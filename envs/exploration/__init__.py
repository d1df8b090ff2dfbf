"""Exploration: worlds in which finding out is the task, or in which something looks like finding out and is not."""
