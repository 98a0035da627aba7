"""Runs in a pod of the cluster, as text after `python -c`: asks the gateway's Service, and prints one JSON object.

It needs the client package alone. The order is its one argument, the API key is in ONLINERLHF_API_KEY.
"""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from os import environ
from typing import Any

from onlinerlhf_client import Client, Consent, OnlineRLHFError, Submission, Timeouts


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Answers and prompts until enough are done and the time is over; a refusal is counted by its kind."""
    found: dict[str, Any] = {"answers": [], "samples": [], "refused": [], "http": None}
    until = time.monotonic() + order.get("seconds", 0)
    with Client(order["target"], timeouts=Timeouts(total_seconds=300.0)) as client:
        at = 0
        while True:
            for _ in range(order.get("answers", 0)):
                found["answers"].append(_answer(client, order["tag"], at))
                at += 1
            results = client.submit_many(_submissions(order["tag"], at, order.get("prompts", 0)))
            for result in results:
                if result.receipt is not None:
                    found["samples"].append(result.receipt.sample_id)
                else:
                    found["refused"].append(type(result.error).__name__)
            at += order.get("prompts", 0)
            if time.monotonic() >= until:
                break
            time.sleep(order.get("pause_seconds", 1.0))
    if "http" in order:
        found["http"] = _chat(order["http"])
    return found


def _answer(client: Client, tag: str, at: int) -> dict[str, Any]:
    try:
        answer = client.answer(
            f"tell me one sentence about {tag} {at}.", user_id=f"user-{at % 50}", max_tokens=8, timeout=60.0
        )
    except OnlineRLHFError as error:
        return {"error": type(error).__name__}
    return {"sample": answer.sample_id, "version": answer.policy_version, "tokens": len(answer.token_ids)}


def _submissions(tag: str, start: int, num: int) -> Iterator[Submission]:
    consent = Consent.shown_now("1")
    for at in range(start, start + num):
        text = f"{tag} {at}: name three things that begin with {tag[at % len(tag)]}{at}."
        yield Submission(text=text, user_id=f"user-{at % 50}", consent=consent)


def _chat(base_url: str) -> str:
    """One completion by HTTP: the content of the first choice."""
    body = {"model": "policy", "max_tokens": 8, "user": "user-0", "messages": [{"role": "user", "content": "hello."}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {environ['ONLINERLHF_API_KEY']}"}
    request = urllib.request.Request(  # noqa: S310
        f"{base_url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return str(json.load(response)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    print(json.dumps(work(json.loads(sys.argv[1]))))
