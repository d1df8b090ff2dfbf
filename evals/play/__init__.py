"""People and programs at the board: ``mlbits play`` in the terminal, and the UCI door of chess."""
