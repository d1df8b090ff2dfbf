"""Pictures of Diplomacy positions: PNG, SVG and text."""
