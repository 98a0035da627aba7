"""`onlinerlhf keys …` and `onlinerlhf quota …`: who may call, and how much. They talk to Redis, not to a gateway."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from onlinerlhf.gateway.access.callers import Limits
    from onlinerlhf.local.targets import Target

F = TypeVar("F", bound=Callable[..., Any])

_COUNT = click.IntRange(min=1, max=100_000_000)


def target_options(command: F) -> F:
    """Which run: that of the platform that is up, or one in another Redis."""
    for option in (
        click.option("--run", envvar="ONLINERLHF_RUN__ID", help="With --redis-url: name of the run.  [default: local]"),
        click.option(
            "--redis-url",
            envvar="ONLINERLHF_RUN__REDIS_URL",
            show_envvar=True,
            help="The run's Redis.  [default: that of the platform that is up]",
        ),
        click.option(
            "--run-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Run directory of the platform.  [default: the newest under HOME/runs]",
        ),
        click.option(
            "--home",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".onlinerlhf"),
            envvar="ONLINERLHF_HOME",
            show_default=True,
            help="Directory of models and runs.",
        ),
    ):
        command = option(command)
    return command


def limit_options(command: F) -> F:
    """A key's own limits."""
    for option in (
        click.option("--tokens-per-day", type=_COUNT),
        click.option("--requests-per-day", type=_COUNT),
        click.option("--max-concurrent", type=_COUNT, help="Answers under way at a time."),
        click.option("--tokens-per-minute", type=_COUNT, help="Prompt and response tokens together."),
        click.option("--requests-per-minute", type=_COUNT),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "json_output", is_flag=True, help="For programs.")


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    \b
      onlinerlhf keys create --name ci --class playground --organisation acme
      onlinerlhf keys list
      onlinerlhf keys revoke 3kX09aQz81Lm
    """


@keys.command()
@click.option("--name", required=True, help="What it is for, as lists show it.")
@click.option(
    "--class",
    "key_class",
    required=True,
    type=click.Choice(["playground", "production"]),
    help="playground: prompts may be learned from, with their users' consent. production: never.",
)
@click.option("--organisation", default="", help="Whose users it speaks for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("generate", "feedback"),
    show_default=True,
    type=click.Choice(["generate", "feedback", "admin"]),
    help="What it may do; may be repeated.",
)
@limit_options
@target_options
@json_option
def create(**options: Any) -> None:
    """Make a key. It is printed once; only a digest of it is kept.

    Limits that are not given are those of the class.

    \b
      onlinerlhf keys create --name ci --class playground --organisation acme --scope generate --scope feedback
      export ONLINERLHF_API_KEY=$(onlinerlhf keys create --name me --class production --requests-per-minute 60)
    """
    from onlinerlhf.gateway.access.callers import KeyClass, Scope
    from onlinerlhf.local import keys as command

    new = command.NewKey(
        name=options["name"],
        key_class=KeyClass(options["key_class"]),
        organisation=options["organisation"],
        scopes=frozenset(Scope(scope) for scope in options["scopes"]),
        limits=_limits(options),
    )
    command.create(_target(options), new, json_output=options["json_output"])


@keys.command("list")
@target_options
@json_option
def list_keys(**options: Any) -> None:
    """Show all keys, revoked ones included, without secrets.

    \b
      onlinerlhf keys list
      onlinerlhf keys list --json | jq '.[] | select(.revoked_at_seconds == null)'
    """
    from onlinerlhf.local import keys as command

    command.show_keys(_target(options), json_output=options["json_output"])


@keys.command()
@click.argument("key_id")
@target_options
def revoke(key_id: str, **options: Any) -> None:
    """Refuse a key from now on, at every gateway within 5 s. KEY_ID is the one that `keys list` shows.

    \b
      onlinerlhf keys revoke 3kX09aQz81Lm
    """
    from onlinerlhf.local import keys as command

    command.revoke(_target(options), key_id)


@click.group(invoke_without_command=True)
@click.pass_context
def quota(context: click.Context) -> None:
    """Show or change what keys, users and organisations may use.

    \b
      onlinerlhf quota
      onlinerlhf quota show --user ada --organisation acme
      onlinerlhf quota set 3kX09aQz81Lm --tokens-per-minute 100000
    """
    if context.invoked_subcommand is None:
        # As if it had been named, the environment's settings included.
        with show.make_context("show", [], parent=context) as shown:
            show.invoke(shown)


@quota.command()
@click.option("--key", "key_id", help="One key.  [default: all that are in force]")
@click.option("--user", "user_id", help="One user, of the organisation given or of keys without one.")
@click.option("--organisation", help="One organisation.")
@target_options
@json_option
def show(**options: Any) -> None:
    """Show what is used and what is left, now.

    \b
      onlinerlhf quota show --key 3kX09aQz81Lm
      onlinerlhf quota show --user ada --organisation acme --json
    """
    if options["key_id"] and (options["user_id"] or options["organisation"]):
        raise click.UsageError("--key goes with neither --user nor --organisation")
    from onlinerlhf.local import keys as command

    command.show_quota(
        _target(options),
        key_id=options["key_id"],
        user_id=options["user_id"],
        organisation=options["organisation"],
        json_output=options["json_output"],
    )


@quota.command("set")
@click.argument("key_id")
@limit_options
@click.option("--class-defaults", is_flag=True, help="What is not given goes back to the class's limits.")
@target_options
def set_limits(key_id: str, **options: Any) -> None:
    """Change a key's limits, at every gateway within 5 s. What is not given stays.

    \b
      onlinerlhf quota set 3kX09aQz81Lm --requests-per-minute 600 --tokens-per-day 5000000
      onlinerlhf quota set 3kX09aQz81Lm --class-defaults
    """
    from onlinerlhf.gateway.access.callers import Limits
    from onlinerlhf.local import keys as command

    limits = _limits(options)
    if limits is None and not options["class_defaults"]:
        raise click.UsageError("say what to change, as --requests-per-minute; --help lists all limits")
    command.set_quota(_target(options), key_id, limits or Limits(), class_defaults=options["class_defaults"])


def _limits(options: dict[str, Any]) -> "Limits | None":
    from onlinerlhf.gateway.access.callers import Limits

    limits = Limits(**{each.name: options[each.name] for each in fields(Limits)})
    return None if limits == Limits() else limits


def _target(options: dict[str, Any]) -> "Target":
    from onlinerlhf.local import targets

    return targets.find(options["home"], options["run_dir"], redis_url=options["redis_url"], run=options["run"])
