"""Rules that come with mlbits, each with a card that says where it comes from."""
