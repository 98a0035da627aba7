"""Every claim, one line each: name value unit goal. Exits 1 when a goal is missed.

Each benchmark is a process of its own, so that none inherits another's threads, memory or engine.
"""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("learner", "rollout_throughput", "weight_update_pause", "idle_share", "gateway", "screening", "scaling")
LIMIT_SECONDS = 1200


def main() -> int:
    """Run the named benchmarks, or all; their progress goes to standard error."""
    here = Path(__file__).parent
    chosen = sys.argv[1:] or BENCHMARKS
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    ok = True
    for name in chosen:
        done = subprocess.run(
            [sys.executable, str(here / f"{name}.py")], stdout=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS
        )
        claims = [line for line in done.stdout.splitlines() if line]
        print("\n".join(claims) if claims else f"{name} failed", flush=True)
        ok = ok and done.returncode == 0 and bool(claims) and not any(line.endswith("MISSED") for line in claims)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
