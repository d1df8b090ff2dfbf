"""Curves of a run under way: TensorBoard, records, other trackers, and progress on the screen."""
