"""Diplomacy without press: the rules, the boards, the notation of orders, and the adjudicator.

| question | file |
|---|---|
| the environment | ``game.py`` (spaces, settings), ``phases.py`` (rules), ``observation.py`` |
| the adjudicator | ``adjudicator.py``, with ``decisions.py`` and ``dependency_cycles.py`` |
| retreats, builds, disbands, the next phase | ``phase_resolution.py`` |
| adjudicating outside a game | ``report.py`` (with reasons), ``compiled_adjudicator.py`` (many positions) |
| the map | ``board.py``, ``standard_map.json``, ``mini_map.json`` |
| the order parser | ``order_parser.py`` |
| legal orders | ``order_masks.py`` (compiled), ``order_reasons.py`` (with reasons), ``vocabulary.py`` (numbering) |
| saved games, test vectors, replay pages | ``files/`` |
| pictures and text | ``drawing/`` |

Players of Diplomacy do not belong here: bots are in ``agents/bots``.
"""
