"""What a game is declared with: rules, random draws, spaces, settings, errors, drawing. Nothing here steps a game."""
