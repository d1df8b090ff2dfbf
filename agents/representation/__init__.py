"""Representations of pictures that are learned before acting: from compared pairs, from pictures alone, and goals in them."""
