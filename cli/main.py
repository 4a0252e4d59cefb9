"""The command line: which verb lives where, and what the exit codes mean."""

import importlib
import sys
from types import MappingProxyType
from typing import Final

import click

_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130

# verb -> (module, one line of help). The module is imported when its verb is used, so that help
# comes at once and a missing extra breaks only its own verbs.
VERBS: Final = MappingProxyType(
    {
        "demo": ("demo", "Start the farm and render one video with the miniature model."),
        "up": ("up", "Run a whole farm on this machine."),
        "down": ("up", "Stop the farm of this directory."),
        "status": ("up", "Show the farm of this directory."),
        "login-url": ("up", "Print a one-time link to the dashboard."),
        "submit": ("videos", "Ask for a video."),
        "watch": ("videos", "Follow a video until it ends."),
        "get": ("videos", "Show one video."),
        "ls": ("videos", "List videos."),
        "cancel": ("videos", "Stop videos."),
        "generate": ("generate", "Render a video here, without a farm."),
        "remix": ("videos", "Make a video again, with changes."),
        "promote": ("videos", "Make a draft again in full quality."),
        "estimate": ("records", "Foresee a video: its time, its memory, its place."),
        "logs": ("records", "Read a video's log."),
        "provenance": ("records", "Show how a video was made."),
        "batch": ("batches", "Look after videos that were asked for together."),
        "download": ("videos", "Save a finished video."),
        "rm": ("videos", "Delete videos."),
        "compare": ("compare", "Measure how two videos differ."),
        "groups": ("groups", "Look at the GPU groups, drain and resume them."),
        "queue": ("operate", "Look at the queue, pause and resume it."),
        "keys": ("operate", "Make, list and revoke API keys."),
        "loras": ("loras", "Look at the LoRA adapters, add and remove them."),
        "webhooks": ("webhooks", "Look after the addresses that are told of videos' ends."),
        "models": ("models", "Look at the models, and check the checkpoints of this machine."),
        "openapi": ("operate", "Print the OpenAPI document."),
        "plan": ("plan", "Choose groups and layouts for a machine's GPUs."),
        "config": ("processes", "Look at the settings that hold here."),
        "bench": ("bench", "Measure a farm under load, or one of its parts."),
        "doctor": ("doctor", "Check this machine and the farm's settings."),
        "api": ("processes", "Run the API and dashboard."),
        "worker": ("processes", "Run one GPU group."),
        "upkeep": ("processes", "Run the slow duties."),
        "db": ("processes", "Look after the schema."),
        "ping": ("processes", "Tell whether a process of the farm is well."),
        "version": ("processes", "Print the version."),
    }
)


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one verb."""
        if cmd_name not in VERBS:
            return None
        name = f"cli.{VERBS[cmd_name][0]}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as err:
            raise click.ClickException(
                f"`wanfarm {cmd_name}` needs the package {err.name!r}, which is not installed. "
                "Install wanfarm with the extra [cli], or run `make setup`."
            ) from err
        return getattr(module, cmd_name.replace("-", "_"), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def wanfarm() -> None:
    """A self-hosted render farm for Wan2.2 video."""


def main() -> None:
    """Run a verb and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a verb; errors that a person can mend become one line on stderr."""
    try:
        result = wanfarm.main(arguments, prog_name="wanfarm", standalone_mode=False)
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except Exception as err:
        if not _is_configuration_error(err):
            raise
        click.echo(f"Error: {err}", err=True)
        return _USAGE
    return result if isinstance(result, int) else 0


def _is_configuration_error(err: Exception) -> bool:
    """Recognise the error without importing settings, which costs a fifth of a second."""
    settings = sys.modules.get("shared.machinery.settings")
    return settings is not None and isinstance(err, settings.ConfigurationError)


if __name__ == "__main__":
    main()
