"""A chess position as text, and as a picture."""
from typing import Any
def chess_text(state: Any, params: Any) -> str: return ""
def chess_image(state: Any, params: Any) -> Any: return None
