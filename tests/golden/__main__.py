"""``python -m tests.golden [NAME...]`` rewrites golden transcripts."""

import sys

from tests.golden import games, path_of, transcript

chosen = sys.argv[1:] or list(games())
unknown = [name for name in chosen if name not in games()]
if unknown:
    sys.exit(f"no transcript {unknown[0]!r}; wanted any of {', '.join(games())}")
for name in chosen:
    path_of(name).write_text(transcript(name), encoding="utf-8")
    print(path_of(name).name)
