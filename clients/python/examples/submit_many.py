"""Offer a prompt a line of standard input as training data: python submit_many.py 127.0.0.1:50051 < prompts.txt"""

import asyncio
import sys
from collections import Counter

from onlinerlhf_client import AsyncClient, Submission


async def main(target: str) -> None:
    """Count what became of them."""
    outcomes: Counter[str] = Counter()
    submissions = (Submission(text=line.rstrip("\n"), user_id="example") for line in sys.stdin)
    async with AsyncClient(target) as client:
        async for result in client.submit_many(submissions):
            outcomes["admitted" if result.error is None else result.error.reason] += 1
    for outcome, num in outcomes.most_common():
        print(f"{num:6d} {outcome}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
