"""Representations of pictures, learned before acting from compared pairs or from pictures alone, and goals in them."""
