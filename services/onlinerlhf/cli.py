"""`onlinerlhf …`: thin, and quick to answer: everything heavy is imported inside the command that needs it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from onlinerlhf.cli_data import data
from onlinerlhf.cli_k8s import k8s
from onlinerlhf.cli_keys import keys, quota
from onlinerlhf.cli_train import train
from onlinerlhf.core.errors import OnlineRLHFError

HOME = ".onlinerlhf"


class OneLineErrors(click.Group):
    """Turns expected failures into one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except OnlineRLHFError as error:
            raise click.ClickException(str(error)) from None
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("onlinerlhf"):
                raise
            needs = f"this command needs {error.name}, which is not installed here"
            raise click.ClickException(f"{needs}: pip install 'onlinerlhf[local]'") from None


@contextmanager
def client_errors() -> Iterator[None]:
    """The client's exceptions as one line."""
    from onlinerlhf_client import OnlineRLHFError as ClientError

    try:
        yield
    except ClientError as error:
        raise click.ClickException(str(error)) from None


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(HOME),
    envvar="ONLINERLHF_HOME",
    show_default=True,
    help="Directory of models and runs.",
)
run_dir_option = click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run directory of the platform.  [default: the newest under HOME/runs]",
)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="onlinerlhf")
def cli() -> None:
    """Online RLHF on one machine: a gateway, vLLM rollout workers, a reward model and a PPO learner.

    \b
    Start here:
      onlinerlhf demo                          everything, ending in a report (about 15 minutes on 2 cores)
    Or step by step:
      onlinerlhf bootstrap                     make small models
      onlinerlhf up                            run the platform; Ctrl-C drains
      onlinerlhf submit "name three foods. use commas." --user ada --answer
      onlinerlhf status                        in another terminal
    The small models know a small world in lower case; to see them learn from few prompts:
      onlinerlhf up --gateway-port 50051 --set learner.batch_size=32 --set gateway.max_epochs=4
    On Kubernetes:
      onlinerlhf k8s install --help            then k8s status, scale, drain, logs
    """


@cli.command()
@home_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to.  [default: HOME/models]")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same models.")
@click.option("--scale", default="demo", show_default=True, help="demo: minutes on 2 cores; tiny: seconds, for tests.")
def bootstrap(home: Path, out: Path | None, seed: int, scale: str) -> None:
    """Make small models: tokenizer, base model, SFT policy, reward model.

    They are ordinary transformers directories; a stage that is already there is not repeated.

    \b
      onlinerlhf bootstrap
      onlinerlhf bootstrap --out /tmp/models --scale tiny
    """
    from onlinerlhf.learner.bootstrap import bootstrap_command

    bootstrap_command(out or home / "models", seed, scale)


for group in (train, keys, quota, data, k8s):
    cli.add_command(group)


@cli.command()
@home_option
@click.option(
    "--run", default="local", show_default=True, help="Name of the run; the same name goes on where it stopped."
)
@click.option("--policy", "policy_dir", type=click.Path(path_type=Path), help="SFT policy.  [default: HOME/models/sft]")
@click.option(
    "--reward", "reward_dir", type=click.Path(path_type=Path), help="Reward model.  [default: HOME/models/reward]"
)
@click.option(
    "--rollout-workers",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="At the start; `scale` changes it.",
)
@click.option(
    "--max-rollout-workers", type=click.IntRange(min=1), help="As many `scale` may ask for.  [default: 8, or more]"
)
@click.option("--redis-url", envvar="ONLINERLHF_REDIS_URL", help="Use this Redis.  [default: an embedded one]")
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    help="Loopback port for gRPC clients.  [default: a free one]",
)
@click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    help="Loopback port for OpenAI clients.  [default: a free one]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="ONLINERLHF_CONFIG",
    show_envvar=True,
    help="TOML with a section a service.",
)
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting; may be repeated.")
@click.option("--plain", is_flag=True, help="Lines instead of the live picture.")
def up(**options: object) -> None:
    """Run the whole platform on loopback ports until Ctrl-C, which drains it.

    \b
      onlinerlhf up
      onlinerlhf up --policy my/sft --reward my/reward --set learner.batch_size=64 --set rollout.num_responses=4
      onlinerlhf up --redis-url redis://127.0.0.1:6379/0 --rollout-workers 2
    """
    from onlinerlhf.local import up as command

    command.up(command.UpOptions(**options))  # type: ignore[arg-type]


@cli.command()
@home_option
@click.option("--run", default="demo", show_default=True, help="Name of the run.")
@click.option("--fast", is_flag=True, help="Tiny models and a few steps: shows the machinery, proves nothing.")
def demo(home: Path, run: str, fast: bool) -> None:
    """Make models, run the platform, learn from simulated users, evaluate on held-out ones, write a report.

    Ends with an error when the PPO policy's win rate over the SFT policy is below 65% or its 95% interval does not
    clear 50%, on at least 200 held-out prompts; when fewer than 5 new versions reached the rollout worker in flight;
    or when the ledger does not account for every sample. With --fast only the ledger counts.

    \b
      onlinerlhf demo
      onlinerlhf demo --home /tmp/demo --fast
    """
    from onlinerlhf.local import demo as command

    with client_errors():
        command.demo(home, run=run, fast=fast)


@cli.command()
@home_option
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2, 3), show_default=True, help="May be repeated.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Where to write.  [default: HOME/reproduce/report]"
)
@click.option("--fast", is_flag=True, help="Tiny models and a few steps: shows the machinery, proves nothing.")
def reproduce(home: Path, seeds: tuple[int, ...], out: Path | None, fast: bool) -> None:
    """InstructGPT in miniature: base, prompted base, SFT, PPO and PPO-ptx, compared by the gold judge.

    Trains and measures each seed from nothing, writes a page with a table and two plots, and prints what it shows, a
    claim a line; exits with 1 when one does not hold. What is done is kept: the same command goes on where it stopped.

    \b
      onlinerlhf reproduce
      onlinerlhf reproduce --seed 4 --seed 5 --out /tmp/report
    """
    from onlinerlhf.local.reproduce.command import reproduce as command

    command(home, seeds=seeds, out=out, fast=fast)


@cli.command()
@click.argument("text", required=False)
@home_option
@run_dir_option
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON lines: prompt, user."
)
@click.option("--user", "user_id", default="local", show_default=True, help="Who asks.")
@click.option("--answer", is_flag=True, help="Stream the answer, too.")
@click.option("--no-consent", is_flag=True, help="With --answer: do not offer the prompt for training.")
@click.option("--notice", default="1", show_default=True, help="Version of the consent notice that the user read.")
def submit(
    text: str | None,
    home: Path,
    run_dir: Path | None,
    path: Path | None,
    user_id: str,
    answer: bool,
    no_consent: bool,
    notice: str,
) -> None:
    """Submit prompts to the running platform as training data; print receipts or why they were refused.

    \b
      onlinerlhf submit "name three foods. use commas." --user ada
      onlinerlhf submit "list two animals. use dashes." --user ada --answer
      onlinerlhf submit "tell me one sentence about the lemon." --user ada --answer --no-consent
      onlinerlhf submit --file prompts.jsonl --user ada
    """
    if (text is None) == (path is None):
        raise click.UsageError("give either a TEXT or --file")
    if path is not None and (answer or no_consent):
        raise click.UsageError("--file goes with neither --answer nor --no-consent: its prompts become training data")
    if no_consent and not answer:
        raise click.UsageError("--no-consent goes with --answer: without an answer a prompt is only training data")
    from onlinerlhf.local import endpoints
    from onlinerlhf.local import submit as command
    from onlinerlhf.local.credentials import client_key
    from onlinerlhf_client import Consent

    target = endpoints.find(home, run_dir).gateway
    api_key = client_key(home, run_dir)
    consent = Consent.shown_now(notice)
    with client_errors():
        if path is not None:
            command.submit_file(target, api_key, path, user_id=user_id, consent=consent)
        elif answer:
            offered = None if no_consent else consent
            command.answer_text(target, api_key, text or "", user_id=user_id, consent=offered)
        else:
            command.submit_text(target, api_key, text or "", user_id=user_id, consent=consent)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("room", type=click.Choice(["rollout"]))
@click.argument("number", type=click.IntRange(min=0), metavar="N")
@home_option
@run_dir_option
@click.option("--no-wait", is_flag=True, help="Return as soon as the platform is asked.")
@click.option(
    "--timeout",
    "timeout_seconds",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Longest wait in seconds; the wish stands after it.",
)
def scale(room: str, number: int, home: Path, run_dir: Path | None, no_wait: bool, timeout_seconds: float) -> None:
    """Start or drain rollout workers of the running platform until there are N, and wait for that.

    Those with the least work in hand go first; what they do not finish, the others take. Nothing is lost or learned
    from twice. A newer wish takes the place of one in progress.

    \b
      onlinerlhf scale rollout 3
      onlinerlhf scale rollout 1 --no-wait
    """
    del room  # the only one of which there can be several
    from onlinerlhf.local import endpoints
    from onlinerlhf.local import scale as command

    command.scale(endpoints.find(home, run_dir), number, wait=not no_wait, timeout_seconds=timeout_seconds)


@cli.command()
@home_option
@run_dir_option
@click.option("--json", "json_output", is_flag=True, help="For programs.")
def status(home: Path, run_dir: Path | None, json_output: bool) -> None:
    """Show backlogs, versions, the newest step and the ledger of the running platform, once.

    \b
      onlinerlhf status
      onlinerlhf status --json | jq .ledger
    """
    from onlinerlhf.local import endpoints, inspect

    inspect.show_status(endpoints.find(home, run_dir), json_output=json_output)


@cli.command()
@home_option
@run_dir_option
def doctor(home: Path, run_dir: Path | None) -> None:
    """Name the stuck edge: which service, stream or supply holds the loop up, and why.

    Exits with 1 when something is broken.

    \b
      onlinerlhf doctor
    """
    from onlinerlhf.local import endpoints, inspect

    if not inspect.run_doctor(endpoints.find(home, run_dir)):
        sys.exit(1)


def main() -> None:
    """Entry point of the `onlinerlhf` command."""
    # Read when torch loads, here and in the services. Threads that spin long while they wait for each other make busy
    # cores a hundred times slower; spinning this little costs a fifth of the speed of idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # gRPC writes a line of its own each time that a server ends a connection.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    cli.main(prog_name="onlinerlhf")
