"""Stream an answer: python answer.py 127.0.0.1:50051 "name three foods. use commas." """

import sys

from onlinerlhf_client import Client, OnlineRLHFError


def main(target: str, text: str) -> None:
    """Print the answer as it comes, then where it came from and whether it is learned from."""
    with Client(target) as client, client.generate(text, user_id="example", training_consent=True) as stream:
        for token in stream:
            print(token.text, end="", flush=True)
        print(f"\n\npolicy version {stream.completion.policy_version}, ended by {stream.completion.finish_reason}")
        if stream.admission.receipt is not None:
            print(f"training sample {stream.admission.receipt.sample_id}")
        else:
            print(f"not learned from: {stream.admission.not_admitted}")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except OnlineRLHFError as error:
        sys.exit(f"{type(error).__name__}: {error}")
