"""Stream an answer: ONLINERLHF_API_KEY=... python answer.py 127.0.0.1:50051 "name three foods. use commas." NOTICE

NOTICE is the version of the notice that the user was shown; without it the prompt is answered and not learned from.
"""

import sys

from onlinerlhf_client import Client, Consent, OnlineRLHFError


def main(target: str, text: str, notice_version: str = "") -> None:
    """Print the answer as it comes, then where it came from."""
    consent = Consent.shown_now(notice_version) if notice_version else None
    with Client(target) as client, client.generate(text, user_id="example", consent=consent) as stream:
        for token in stream:
            print(token.text, end="", flush=True)
        print(f"\n\npolicy version {stream.completion.policy_version}, ended by {stream.completion.finish_reason}")
        print(f"sample {stream.receipt.sample_id}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OnlineRLHFError as error:
        sys.exit(f"{type(error).__name__}: {error}")
