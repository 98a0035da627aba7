"""`onlinerlhf submit`: prompts through the real client."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError
from onlinerlhf_client import Client, Consent, Submission

NOTICE_VERSION = "1"
"""Of the notice that a platform on this machine knows unless it is told otherwise."""
REFUSALS_SHOWN = 20


def submit_text(target: str, api_key: str, text: str, *, user_id: str, consent: Consent) -> None:
    """Offer one prompt; print its receipt."""
    with Client(target, api_key=api_key) as client:
        receipt = client.submit(text, user_id=user_id, consent=consent)
    again = " (submitted before)" if receipt.replayed else ""
    print(f"sample {receipt.sample_id}: received, {receipt.num_prompt_tokens} tokens{again}")


def answer_text(target: str, api_key: str, text: str, *, user_id: str, consent: Consent | None) -> None:
    """Stream the answer to standard output; on standard error, what answered and under which sample id."""
    with (
        Client(target, api_key=api_key) as client,
        client.generate(text, user_id=user_id, consent=consent) as stream,
    ):
        for token in stream:
            sys.stdout.write(token.text)
            sys.stdout.flush()
        print()
        receipt, completion = stream.receipt, stream.completion
    offer = "not offered for training" if consent is None else "offered for training"
    print(
        f"[version {completion.policy_version}, {completion.num_response_tokens} tokens, "
        f"sample {receipt.sample_id}, {offer}]",
        file=sys.stderr,
    )


def submit_file(target: str, api_key: str, path: Path, *, user_id: str, consent: Consent) -> None:
    """Offer every prompt of a JSON-lines file; refusals are listed and do not end the run."""
    prompts = list(read_prompts(path, user_id=user_id, consent=consent))
    refused: Counter[str] = Counter()
    console = Console(stderr=True)
    with (
        Client(target, api_key=api_key) as client,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("submitting", total=len(prompts))
        results = client.submit_many([submission for _, submission in prompts])
        for (number, _), result in zip(prompts, results, strict=True):
            if result.error is not None:
                refused[result.error.reason or type(result.error).__name__] += 1
                if refused.total() <= REFUSALS_SHOWN:
                    progress.console.print(f"line {number} refused: {result.error}", highlight=False, markup=False)
            progress.advance(task)
    kinds = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
    print(f"{len(prompts) - refused.total()} received, {refused.total()} refused{f' ({kinds})' if kinds else ''}")
    if prompts and refused.total() == len(prompts):
        raise OnlineRLHFError("every prompt was refused")


def read_prompts(path: Path, *, user_id: str, consent: Consent) -> Iterator[tuple[int, Submission]]:
    """Lines with a `prompt` and, optionally, a `user`; each with its number in the file."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, parse_prompt(line, user_id=user_id, consent=consent)
            except ValueError as error:
                raise InvalidInput(f"{path}, line {number}: {error}") from None


def parse_prompt(line: bytes, *, user_id: str, consent: Consent) -> Submission:
    """One line. Raises ValueError, which does not repeat it."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("not JSON") from None
    if not isinstance(record, dict) or "prompt" not in record:
        raise ValueError("not a JSON object with a field `prompt`")
    record = {"user": user_id, **record}
    for name in ("prompt", "user"):
        if not isinstance(record[name], str):
            raise ValueError(f"`{name}` is not a string")
    return Submission(text=record["prompt"], user_id=record["user"], consent=consent)
