"""The command line, ``facestream``: one module a command; nobody imports it.

    entry               where the command begins, before anything that takes time is loaded
    root                the command itself: its subcommands, ``demo``, ``doctor``
    run                 ``facestream run``
    identify, cluster, faces, spool, models, model_import, doctor
    gallery/, events/, bench/, demo/    commands with subcommands, or with much of their own
    folder_options, model_tables        options and tables that several share
    errors              one line and an exit code for whatever goes wrong

Handlers import what they need when they run, so that ``--help`` is quick. May import every room.
"""


def main() -> None:
    """Run the command line."""
    from stream.cli.entry import main as run

    run()
