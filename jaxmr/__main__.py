"""The program `jaxmr`, also to be started as `python -m jaxmr`."""

import importlib
import sys

from jaxmr.cli.parser import command_line


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit status: 0, 2 for an error in the input, 130 when interrupted."""
    try:
        options = command_line().parse_args(arguments)
        importlib.import_module(f"jaxmr.cli.{options.command.replace('-', '_')}").run(options)
    except KeyboardInterrupt:
        return _report("interrupted", 130)
    except OSError as error:
        named = error.filename is not None and error.strerror
        return _report(f"{error.filename}: {error.strerror}" if named else str(error), 2)
    except (ValueError, ImportError) as error:
        return _report(str(error), 2)
    return 0


def _report(message: str, status: int) -> int:
    print(f"jaxmr: error: {' '.join(message.split())}" if status == 2 else f"jaxmr: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
