"""What a run keeps on disk: its folder, settings, flags, presets, checkpoints, curves and saved agents; no training."""
