"""TensorBoard on runs: named by what differs, with means over seeds, opened on their returns (``mlbits board``)."""
