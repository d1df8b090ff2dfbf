"""``mlbits solve ENV``."""

from __future__ import annotations

from mlbits.cli.printing import check_file, write_json


def command(words: list[str]) -> int:
    """Solve a small environment exactly."""
    from mlbits.selfplay.runs.flags import parse_solve

    env, settings, flags = parse_solve(words)
    for name in ("json", "picture"):
        check_file(name, getattr(flags, name))
    from mlbits.evals.solve import describe, solve
    from mlbits.selfplay.curves.progress import compilation_messages

    with compilation_messages():
        result = solve(
            env, settings, discount=flags.discount, tolerance=flags.tolerance, state_limit=flags.state_limit,
            picture=flags.picture,
        )  # fmt: skip
    print(describe(result))
    if flags.picture is not None:
        print(f"picture: {flags.picture}")
    write_json(flags.json, result)
    return 0
