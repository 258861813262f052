"""`python -m deployments.demo_data OUT [--sessions N] [--bytes TOTAL]`: makes the demo dataset."""

import argparse
import sys
from pathlib import Path

from deployments.demo_data import DemoDataError, make_dataset


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Exit code 0: done; 1: stopped on the way, run again to go on; 2: refused, nothing touched."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.demo_data",
        description="Makes the tree of OpenNeuro ds004884 (902 sessions), with phantoms in place of its images.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder: new, empty, or one to be completed")
    parser.add_argument("--sessions", type=int, metavar="N", help="a cut that stands for the whole (default: all 902)")
    parser.add_argument(
        "--bytes", type=int, metavar="TOTAL", help="of all images (default: 300000000 for all sessions)"
    )
    options = parser.parse_args(arguments)
    try:
        made = make_dataset(options.out, options.sessions, options.bytes)
    except (DemoDataError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Stopped: {error}. Run again to complete {options.out}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Stopped. Run again to complete {options.out}.", file=sys.stderr)
        return 1
    print(f"sessions {made.sessions}")
    print(f"subjects {made.subjects}")
    print(f"images   {made.images} ({made.images_made} made now)")
    print(f"bytes    {made.image_bytes} of images")
    print(f"seconds  {made.seconds:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
