"""Owns the commands of the one-machine stack: demo, up, serve, down, status, logs, reset."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from infra.local import logs, memory, readiness, stack
from infra.local.placement import StoreError
from infra.local.settings import Place, StackConfig, kept_ports
from infra.local.stack import Running, Stack, StackError
from libs import config
from libs.config import ConfigError
from libs.vault import ProviderError

DEMO = "demo"
"""Folder of the demo's own state, below the state directory."""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs one command; returns an exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load(StackConfig, environ)
        if options.state is not None:
            settings = replace(settings, state_dir=options.state)
        return _run(options, settings)
    except (StackError, StoreError, ConfigError, ProviderError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, settings: StackConfig) -> int:
    place = Place(settings.state_dir.absolute())
    match options.command:
        case "demo":
            return _demo(settings, keep=options.keep)
        case "up":
            return _up(settings)
        case "serve":
            return _serve(settings, options.set)
        case "down":
            print("stopped" if stack.stop(place) else "nothing runs")
        case "status":
            return _status(place)
        case "logs":
            return _logs(place, options.service, options.lines)
        case "reset":
            for each in (Place(place.state / DEMO), place):
                stack.stop(each)
                stack.forget(each)
            print("forgotten")
    return 0


def _demo(settings: StackConfig, *, keep: bool) -> int:
    """In a state directory of its own, so that it meets nothing of what `up` keeps."""
    demo = Stack(replace(settings, state_dir=settings.state_dir / DEMO))
    with demo.locked():
        stack.forget(demo.place, but_lock=True)
        demo.place.make()
        code = demo.run(_direct("demo"), stay=False)
        if code == 0 and not keep:
            stack.forget(demo.place, but_lock=True)
    return code


def _up(settings: StackConfig) -> int:
    up = Stack(settings)
    with up.locked():
        if up.place.secrets.exists() and not up.place.publication.exists():
            print("the last first start did not come to its end: starting over")
            stack.forget(up.place, but_lock=True)
            up.place.make()
        return up.run(_direct("up"), stay=True)


def _serve(settings: StackConfig, extra: Sequence[str]) -> int:
    serving = Stack(settings, extra=_extra(extra))
    with serving.locked():
        return serving.run(_direct("serve"), stay=True)


def _direct(name: str) -> Callable[[Running], int]:
    """What is done beside the stack; imported with the services, while the stores start."""

    def direct(running: Running) -> int:
        from infra.local import director

        work: Callable[[Running], int] = getattr(director, name)
        return work(running)

    return direct


def _status(place: Place) -> int:
    pid = stack.holder(place)
    if pid is None:
        print("nothing runs")
        return 1
    print(f"{'program':<12} {'state':<11} {'process':>8} {'restarts':>8} {'up':>9} {'memory':>8}  last exit")
    for name, run in readiness.programs(place).items():
        up, size = "", ""
        if run["pid"] is not None:
            # It may end while it is looked at.
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds = int(max(0.0, time.time() - psutil.Process(run["pid"]).create_time()))
                up = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
                size = f"{memory.of_process(run['pid']) / 1e6:.0f} MB"
        line = f"{name:<12} {run['state']:<11} {run['pid'] or '':>8} {run['restarts']:>8} {up:>9} {size:>8}"
        print(f"{line}  {run['last_exit']}".rstrip())
    if place.ports.exists():
        ports = kept_ports(place)
        print(f"API {ports.gateway_url}, mails {ports.mail_url}, Stripe {ports.stripe_url}")
    return 0


def _logs(place: Place, service: str | None, lines: int) -> int:
    names = list(logs.names(place.logs))
    if service is not None and service not in names:
        sys.stderr.write(f"no log of {service}; there are: {', '.join(names) or 'none'}\n")
        return 1
    for name in [service] if service else names:
        print(f"{name}:\n{logs.tail(place.logs / f'{name}.log', lines)}")
    return 0


def _extra(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """`billing:GATEFOLD_LOG_LEVEL=debug` to settings by service."""
    extra: dict[str, dict[str, str]] = {}
    for text in given:
        service, colon, setting = text.partition(":")
        name, equals, value = setting.partition("=")
        if not colon or not equals:
            raise StackError(f"--set takes service:NAME=value, not {text}")
        extra.setdefault(service, {})[name] = value
    return extra


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="The whole product on one machine.")
    parser.add_argument("--state", type=Path, help="state directory, instead of GATEFOLD_STATE_DIR")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="start everything, run a reader's whole journey, stop")
    demo.add_argument("--keep", action="store_true", help="keep the state of a journey that went well, too")
    commands.add_parser("up", help="start everything with a seeded publication and stay")
    serve = commands.add_parser("serve", help="start everything without a publication and stay; for tests")
    serve.add_argument("--set", action="append", default=[], metavar="service:NAME=value")
    commands.add_parser("down", help="stop what `up` started")
    commands.add_parser("status", help="show what runs")
    shown = commands.add_parser("logs", help="show the newest log lines")
    shown.add_argument("service", nargs="?")
    shown.add_argument("-n", "--lines", type=int, default=20)
    commands.add_parser("reset", help="stop and forget all local data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
