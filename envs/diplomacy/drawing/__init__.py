"""Drawings of Diplomacy positions: images, SVG and text. Reading and writing games and rules do not belong here."""
