"""Looking ahead by the rules: tree search over many games at once, and search where moves are simultaneous."""
