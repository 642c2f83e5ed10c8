"""python -m millpond worker module:app"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys

from . import prefork
from .app import App
from .errors import Error
from .link import VERSION, Options
from .roster import Roster
from .values import millis

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """Bytes, such as 512MiB."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 512MiB")
    return int(found[1]) * _UNITS[found[2]]


def find(target: str) -> App:
    """The app that `module:name` means."""
    module, _, name = target.partition(":")
    sys.path.insert(0, os.getcwd())
    app = getattr(importlib.import_module(module), name or "app", None)
    if not isinstance(app, App):
        raise SystemExit(f"millpond: {target} is no millpond.App")
    return app


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m millpond", description="Millpond for Python")
    parser.add_argument("--version", action="version", version=f"millpond-python {VERSION}")
    worker = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("worker", help="do jobs by the handlers of an app")
    worker.add_argument("target", metavar="MODULE:APP", help="where the app is; its name is `app` if none is given")
    worker.add_argument("--url", help="the server, instead of the app's")
    worker.add_argument("--queues", metavar="A,B", help="only these")
    worker.add_argument("--concurrency", type=int, metavar="N", help="handlers at once, for those that say nothing themselves")
    worker.add_argument("--processes", type=int, metavar="N", help="so many processes, each with that concurrency; one that ends is started again")
    worker.add_argument("--drain", default="30s", metavar="SPAN", help="how long running jobs have to end after SIGTERM or Ctrl-C (30s)")
    worker.add_argument("--max-jobs", type=int, metavar="N", help="a process ends after so many jobs")
    worker.add_argument("--max-memory", type=size, metavar="SIZE", help="a process ends when it uses so much, such as 512MiB")
    worker.add_argument("--log", default="info", choices=["error", "warning", "info", "debug"], help="what is logged to stderr (info)")
    # From the parent to its children.
    worker.add_argument("--name", help=argparse.SUPPRESS)
    worker.add_argument("--roster", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    logging.basicConfig(level=given.log.upper(), format="%(asctime)s %(levelname)s %(process)d %(message)s")
    try:
        return work(given, sys.argv[1:] if words is None else words)
    except (Error, ValueError, ImportError) as error:
        print(f"millpond: {error}", file=sys.stderr)
        return 1


def work(given: argparse.Namespace, words: list[str]) -> int:
    """The command `worker`."""
    app = find(given.target)
    app.url = given.url or app.url
    drain = millis(given.drain) / 1000
    if given.processes is not None and given.roster is None:
        command = prefork.command(words)
        options = Options(token=app.options.get("token"), name=app.options.get("name", ""), tls=app.options.get("tls"))
        return prefork.Parent(command, given.processes, app.url, options, drain).run()
    if given.name:
        app.options["name"] = given.name
    roster = Roster(given.roster) if given.roster is not None else None
    if roster:
        prefork.end_with_parent()
    limits = {"max_jobs": given.max_jobs, "max_memory": given.max_memory}
    queues = given.queues.split(",") if given.queues else None
    quiet = app.run(queues=queues, concurrency=given.concurrency, drain=drain, roster=roster, **limits)
    # Threads that do not end would hold up the exit.
    sys.stdout.flush()
    sys.stderr.flush()
    if not quiet:
        os._exit(1)
    return prefork.RECYCLED if roster else 0


if __name__ == "__main__":
    sys.exit(main())
