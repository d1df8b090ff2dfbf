"""Commands about single games: playing, watching, adjudicating them."""
