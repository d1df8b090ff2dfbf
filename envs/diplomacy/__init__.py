"""Diplomacy without press: the rules, the notation, the boards, and what draws them."""
