"""Offer a prompt a line of standard input as training data: python submit_many.py 127.0.0.1:50051 NOTICE < prompts.txt

NOTICE is the version of the notice that the user was shown. The key comes from ONLINERLHF_API_KEY.
"""

import asyncio
import sys
from collections import Counter

from onlinerlhf_client import AsyncClient, Consent, Submission


async def main(target: str, notice_version: str) -> None:
    """Count what became of them. A refusal that names when to come back is waited for, not counted."""
    outcomes: Counter[str] = Counter()
    consent = Consent.shown_now(notice_version)
    submissions = (Submission(text=line.rstrip("\n"), user_id="example", consent=consent) for line in sys.stdin)
    async with AsyncClient(target) as client:
        async for result in client.submit_many(submissions):
            outcomes["received" if result.error is None else result.error.reason] += 1
    for outcome, num in outcomes.most_common():
        print(f"{num:6d} {outcome}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
