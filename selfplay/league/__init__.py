"""The league: opponents, who meets them, and how often they win."""
