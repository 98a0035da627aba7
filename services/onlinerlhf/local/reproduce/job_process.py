"""`python -m onlinerlhf.local.reproduce.job_process`: one job, its progress on standard output.

Exit code 1: an error that its last line on standard error names.
"""

import argparse
import sys
from pathlib import Path

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.local.reproduce.jobs import run_job
from onlinerlhf.local.reproduce.layout import JOBS, SeedDirectory
from onlinerlhf.local.reproduce.relay import Sender
from onlinerlhf.local.reproduce.settings import FAST, MINIATURE


def main() -> None:
    """Runs the job that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--job", choices=JOBS, required=True)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    settings = FAST if options.fast else MINIATURE
    directory = SeedDirectory(root=options.root, settings=settings, seed=options.seed)
    try:
        run_job(directory, options.job, progress=Sender(sys.stdout))
    except OnlineRLHFError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
