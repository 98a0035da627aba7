"""An answer, and what its reader thinks of it: ONLINERLHF_API_KEY=... python feedback.py 127.0.0.1:50051 "say hi." """

import sys

from onlinerlhf_client import Client, OnlineRLHFError


def main(target: str, text: str) -> None:
    """The first line of standard input is + or -, a score from 0 to 1, or what the answer should have been."""
    with Client(target) as client:
        answer = client.answer(text, user_id="example")
        print(f"{answer.text}\n+, -, 0 to 1, or a better answer: ", end="", flush=True)
        opinion = sys.stdin.readline().strip()
        if opinion in ("+", "-"):
            given = client.feedback.thumb(answer.sample_id, up=opinion == "+")
        elif is_number(opinion):
            given = client.feedback.score(answer.sample_id, float(opinion))
        else:
            given = client.feedback.correct(answer.sample_id, opinion)
        print(f"feedback {given.feedback_id}")


def is_number(text: str) -> bool:
    """Whether it is a score; the gateway says whether it is in range."""
    try:
        float(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OnlineRLHFError as error:
        sys.exit(f"{type(error).__name__}: {error}")
