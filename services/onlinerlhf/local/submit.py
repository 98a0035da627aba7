"""`onlinerlhf submit`: prompts through the real client."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError
from onlinerlhf_client import Client, Submission

REFUSALS_SHOWN = 20


def submit_text(target: str, text: str, *, user_id: str) -> None:
    """Offer one prompt; print its receipt."""
    with Client(target) as client:
        receipt = client.submit(text, user_id=user_id)
    again = " (submitted before)" if receipt.replayed else ""
    print(f"sample {receipt.sample_id}: admitted, {receipt.num_prompt_tokens} tokens{again}")


def answer_text(target: str, text: str, *, user_id: str, consent: bool) -> None:
    """Stream the answer to standard output, and say on standard error what became of the training offer."""
    with Client(target) as client, client.generate(text, user_id=user_id, training_consent=consent) as stream:
        for token in stream:
            sys.stdout.write(token.text)
            sys.stdout.flush()
        print()
        admission, completion = stream.admission, stream.completion
    offer = "not offered for training"
    if admission.receipt is not None:
        offer = f"sample {admission.receipt.sample_id}"
    elif admission.not_admitted is not None and consent:
        offer = f"not admitted: {admission.not_admitted}"
    print(f"[version {completion.policy_version}, {completion.num_response_tokens} tokens, {offer}]", file=sys.stderr)


def submit_file(target: str, path: Path, *, user_id: str) -> None:
    """Offer every prompt of a JSON-lines file; refusals are listed and do not end the run."""
    submissions = list(read_prompts(path, user_id=user_id))
    refused: Counter[str] = Counter()
    console = Console(stderr=True)
    with Client(target) as client, Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("submitting", total=len(submissions))
        for number, result in enumerate(client.submit_many(submissions), start=1):
            if result.error is not None:
                refused[result.error.reason or type(result.error).__name__] += 1
                if refused.total() <= REFUSALS_SHOWN:
                    progress.console.print(f"line {number} refused: {result.error}", highlight=False, markup=False)
            progress.advance(task)
    kinds = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
    print(f"{len(submissions) - refused.total()} admitted, {refused.total()} refused{f' ({kinds})' if kinds else ''}")
    if submissions and refused.total() == len(submissions):
        raise OnlineRLHFError("every prompt was refused")


def read_prompts(path: Path, *, user_id: str) -> Iterator[Submission]:
    """Lines with a `prompt` and, optionally, a `user`."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            prompt = record["prompt"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(f"{path}, line {number}: not a JSON object with a field `prompt`") from None
        yield Submission(text=prompt, user_id=str(record.get("user", user_id)))
