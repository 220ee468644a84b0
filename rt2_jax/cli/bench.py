"""`rt2 bench`: how fast it is here, beside other ways to do the same, in rounds of one run."""

from __future__ import annotations

import argparse
import sys

from rt2_jax.cli.bench_serve import add_serve
from rt2_jax.cli.json_file import check_writable, write_json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 bench` and its verbs."""
    parser = subparsers.add_parser("bench", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    data = verbs.add_parser(
        "data",
        help="batches and caching, beside a bare loop and tf.data",
        description="Draws a robot task, and lets training's pipeline, a bare loop of decoding "
        "and resizing, a tf.data pipeline and caching take turns on it. The figures are per "
        "second of CPU time, of all processes and threads: medians over the rounds.",
    )
    data.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    data.add_argument("--records", type=int, default=2048, help="steps (default: %(default)s)")
    data.add_argument("--size", type=int, default=224, help="pixels a side (default: %(default)s)")
    data.add_argument(
        "--batches", type=int, default=20, help="of 64, in a turn (default: %(default)s)"
    )
    data.add_argument("--json", metavar="F", help="writes the results there, too")
    data.set_defaults(do=_data)
    save = verbs.add_parser(
        "save",
        help="what a step costs while a checkpoint is written",
        description="Takes steps with and without a save at their beginning, in turn.",
    )
    save.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    save.add_argument(
        "--steps", type=int, default=10, help="between two saves (default: %(default)s)"
    )
    save.add_argument(
        "--megabytes", type=int, default=500, help="of the state (default: %(default)s)"
    )
    save.add_argument("--json", metavar="F", help="writes the results there, too")
    save.set_defaults(do=_save)
    add_serve(verbs)
    start = verbs.add_parser(
        "start",
        help="from a server's start until it is ready, cold and warm",
        description="Starts `rt2 serve` again and again: without a cache, with an empty one, and "
        "with one that an earlier start has filled, in turn.",
    )
    start.add_argument("checkpoint", help="checkpoint_<step>, a run's directory, pretrained:NAME")
    start.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    start.add_argument(
        "--batch-sizes", default="1,2,4,8", help="of the server (default: %(default)s)"
    )
    start.add_argument("--json", metavar="F", help="writes the results there, too")
    start.set_defaults(do=_start)
    int8 = verbs.add_parser(
        "int8",
        help="what 8-bit weights change: tokens, success, memory, time",
        description="Plays the table-top world with a checkpoint's weights as stored and, on the "
        "same observations, asks the 8-bit ones too; then plays with these.",
    )
    int8.add_argument("checkpoint", help="a policy of the world: pretrained:rt2_tabletop_tiny")
    int8.add_argument("--weights", default="int8", help="or bfloat16 (default: %(default)s)")
    int8.add_argument(
        "--episodes", type=int, default=50, help="of each skill (default: %(default)s)"
    )
    int8.add_argument("--rounds", type=int, default=50, help="of timing (default: %(default)s)")
    int8.add_argument("--json", metavar="F", help="writes the results there, too")
    int8.set_defaults(do=_int8)
    decode = verbs.add_parser(
        "decode",
        help="how many actions a second a model of this size writes here",
        description="Makes random weights on the device in the dtype that they are served in, and "
        "times one action: pictures and prompt are read, and the tokens written.",
    )
    decode.add_argument(
        "--model", required=True, help="a name in gin_configs/models, or a gin file of a model"
    )
    decode.add_argument(
        "--batch", type=int, nargs="+", default=[1], help="one or more sizes (default: 1)"
    )
    kind = decode.add_mutually_exclusive_group()
    kind.add_argument("--int8", action="store_true", help="kernels in 8 bits")
    kind.add_argument("--bf16", action="store_true", help="weights in bfloat16")
    decode.add_argument("--steps", type=int, default=8, help="tokens (default: %(default)s)")
    decode.add_argument(
        "--prompt", type=int, default=64, help="tokens of the prompt (default: %(default)s)"
    )
    decode.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    decode.add_argument(
        "--parts", action="store_true", help="also times reading alone; compiles twice as long"
    )
    decode.add_argument("--json", metavar="F", help="writes the results there, too")
    decode.set_defaults(do=_decode)


def run(args: argparse.Namespace) -> int | None:
    """Does what the verb asks; returns the exit status."""
    return args.do(args)


def _data(args: argparse.Namespace) -> None:
    from rt2_jax.benchmarks.data import Settings, measure, table

    check_writable(args.json)
    found = measure(Settings(args.rounds, args.records, args.size, args.batches), _report)
    print(table(found))
    write_json(args.json, found)


def _save(args: argparse.Namespace) -> None:
    from rt2_jax.benchmarks.save import Settings, measure, table

    check_writable(args.json)
    found = measure(Settings(args.rounds, args.steps, args.megabytes), _report)
    print(table(found))
    write_json(args.json, found)


def _start(args: argparse.Namespace) -> None:
    from rt2_jax.benchmarks.start import Settings, measure, table

    check_writable(args.json)
    found = measure(Settings(args.checkpoint, args.rounds, args.batch_sizes), _report)
    print(table(found))
    write_json(args.json, found)


def _int8(args: argparse.Namespace) -> None:
    from rt2_jax.benchmarks.int8 import Settings, measure, table

    check_writable(args.json)
    settings = Settings(args.checkpoint, args.episodes, rounds=args.rounds, weights=args.weights)
    found = measure(settings, _report)
    print(table(found))
    write_json(args.json, found)


def _decode(args: argparse.Namespace) -> None:
    from rt2_jax.benchmarks.decode import Settings, measure, table

    check_writable(args.json)
    settings = Settings(
        args.model,
        tuple(args.batch),
        "int8" if args.int8 else "bfloat16" if args.bf16 else "stored",
        args.steps,
        args.prompt,
        args.rounds,
        args.parts,
    )
    found = measure(settings, _report)
    print(table(found))
    write_json(args.json, found)


def _report(line: str) -> None:
    print(f"rt2 bench: {line}", file=sys.stderr, flush=True)
